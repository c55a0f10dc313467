"""Every command with studies in a folder of one's own (`--studies`), and with a file that cannot be used."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from scripted import row

import sweeps
from search_spaces.catalogue import known_sweeps
from sweeps.cli import single
from sweeps.doctor import doctor
from sweeps.errors import UserError
from sweeps.export import export
from sweeps.planning import saved, sessions
from sweeps.planning.command import called_here, of_plan
from sweeps.planning.plan import Overrides, Plan
from sweeps.rates import rates
from sweeps.records.ledger import Ledger
from sweeps.records.storage import Storage
from sweeps.report.__main__ import report
from sweeps.run import run
from sweeps.status import status

STUDY = """
from search_spaces.space import Axis, Study, Sweep

SWEEPS = (
    Sweep(
        "mine",
        "A study of one's own",
        (
            Study(
                name="rates",
                title="Learning rates",
                source="here",
                base={
                    "data": {"name": "digits"},
                    "latent": {"family": "gaussian", "size": 4},
                    "encoder": {"name": "mlp", "hidden": (8,)},
                    "decoder": {"name": "linear"},
                    "estimator": {"name": "silent"},
                    "likelihood": {"name": "gaussian_fixed", "variance": 0.01},
                    "optim": {"name": "adamw"},
                    "epochs": 1,
                    "batch_size": 64,
                },
                grid=(Axis("optim.lr", (1e-3, 1e-2)),),
            ),
        ),
    ),
)
"""
COMMANDS = {
    "run": (run, ("mine", "--plan")),
    "status": (status, ("mine",)),
    "report": (report, ("mine",)),
    "export": (export, ("mine", "--out", "bundle")),
    "rates": (rates, ("mine",)),
    "list": (run, ("--list",)),
    "sizes": (run, ("--list", "--plan")),
    "doctor": (doctor, ()),
}


@pytest.fixture
def studies(tmp_path, monkeypatch) -> Path:
    """A folder with one study and one file that cannot be used."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    folder = tmp_path / "my studies"
    folder.mkdir()
    (folder / "mine.py").write_text(STUDY)
    (folder / "broken.py").write_text("SWEEPS = (")
    yield folder
    known_sweeps.cache_clear()


@pytest.fixture
def trained(studies, tmp_path) -> Storage:
    """A storage in which one of the study's two members has ended."""
    storage = Storage(str(tmp_path / "runs"), "mine")
    plan = Plan(saved.find_sweep("mine", studies))
    saved.save_plan(storage, Overrides())
    words = ("mine", "--studies", str(studies), "--device", "cpu")
    sessions.record(storage, Overrides(), called_here(words))
    Ledger(storage).append([row(plan.members["rates"][0])])
    return storage


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_finds_the_study_and_names_the_file_that_cannot_be_used(command, studies, trained, caplog, name):
    known_sweeps.cache_clear()
    function, arguments = COMMANDS[name]
    code, out, err = command(function, *arguments, "--studies", "my studies")
    assert (code, err) == (1 if name == "doctor" else 0, "")
    told = out if name == "doctor" else caplog.text
    assert re.search(r"my studies/broken\.py cannot be used.*SyntaxError", told)
    found = {
        "run": "rates +here",
        "status": "rates: 1 of 2 done",
        "report": "index.html",
        "export": "bundle: 1 of 2 members finished",
        "rates": "1 kinds of training",
        "list": "mine +A study of one's own +1",
        "sizes": "mine +A study of one's own +1 +2",
        "doctor": "beyond, mine, paper_grid, quickstart can be run",
    }
    assert re.search(found[name], out), out


@pytest.mark.parametrize("name", ["run", "status", "report", "export", "rates"])
def test_without_the_folder_the_study_is_not_known(command, studies, tmp_path, name):
    function, arguments = COMMANDS[name]
    code, out, err = command(function, *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "unknown sweep 'mine'; known: beyond, paper_grid, quickstart" in err


@pytest.mark.parametrize("name", ["status", "report", "export"])
def test_without_the_folder_the_command_that_ran_is_told_but_nothing_of_it_is_imported(command, trained, name):
    known_sweeps.cache_clear()
    function, arguments = COMMANDS[name]
    code, _, err = command(function, *arguments)
    assert code == 2
    assert "it was last run with: python -m sweeps.run mine --studies " in err
    assert "studies.mine" not in {*known_sweeps(None).sweeps}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_folder_that_is_not_there_is_one_line_and_exit_code_2(command, tmp_path, name):
    function, arguments = COMMANDS[name]
    code, out, err = command(function, *arguments, "--studies", "nowhere")
    if name == "doctor":  # it goes on with the other checks
        assert code == 1
        assert "problem studies: NotADirectoryError: --studies: 'nowhere' is no folder" in out
    else:
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert "--studies: 'nowhere' is no folder; name one with files that define SWEEPS" in err
    assert list(tmp_path.iterdir()) == []


def test_a_study_that_is_not_valid_is_one_line_and_the_other_sweeps_are_listed(command, studies):
    (studies / "mine.py").write_text(STUDY.replace('"batch_size": 64', '"batch_size": 0'))
    code, _, err = command(run, "mine", "--studies", "my studies", "--plan")
    assert code == 2
    assert "study 'rates': batch_size" in err
    code, out, _ = command(run, "--list", "--plan", "--studies", "my studies")
    assert code == 0
    assert re.search(r"mine +A study of one's own +1 +\? +\?", out)
    assert re.search(r"quickstart .* 64 ", out)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ('{"name": "adamw"}', "3"),
        ('(Axis("optim.lr", (1e-3, 1e-2)),)', '(Axis("optim.lr", (1e-3, 1e-2)), "epochs")'),
        ('(Axis("optim.lr", (1e-3, 1e-2)),)', "(Axis(3, (1e-3, 1e-2)),)"),
    ],
)
def test_values_of_wrong_types_are_one_line(command, studies, right, wrong):
    assert right in STUDY
    text = STUDY.replace(right, wrong)
    (studies / "mine.py").write_text(text)
    code, _, err = command(run, "mine", "--studies", "my studies", "--plan")
    assert (code, err.count("\n")) == (2, 1)
    assert "study 'rates'" in err


def test_commands_that_are_told_have_the_folder(command, studies, trained):
    code, out, _ = command(status, "mine", "--studies", "my studies")
    assert code == 0
    ran = next(line.partition("To continue: ")[2] for line in out.splitlines() if line.startswith("To continue: "))
    assert shlex.split(ran)[3:] == ["mine", "--studies", str(studies), "--device", "cpu"]
    plan = Plan(saved.find_sweep("mine", studies))
    assert of_plan(plan).words == ("mine", "--studies", str(studies))
    _, out, _ = command(run, "mine", "--studies", "my studies", "--plan")
    assert out.endswith("to measure this machine: python -m sweeps.rates mine --studies 'my studies'\n")
    _, _, err = command(report, "mine", "--studies", "my studies", "--storage", "other")
    assert "run it with: python -m sweeps.run mine --studies 'my studies' --storage other" in err
    _, out, _ = command(run, "--list", "--studies", "my studies")
    assert out.endswith("python -m sweeps.run --list --plan --studies 'my studies'\n")


def test_the_folder_may_come_from_the_environment_and_is_then_in_the_command_that_goes_on(
    command, studies, monkeypatch
):
    monkeypatch.setenv("VAE_SWEEPS_STUDIES", "my studies")
    code, out, _ = command(run, "mine", "--plan")
    assert code == 0
    assert "--studies 'my studies'" in out
    import typer

    from sweeps.cli import given

    context = typer.main.get_command(single(run)).make_context("run", ["mine"])
    assert given(context) == ("mine", "--studies", "my studies")


def test_results_are_read_with_the_folder(studies, trained, tmp_path):
    frames = sweeps.results("mine", str(tmp_path / "runs"), str(studies))
    assert list(frames.results["status"]) == ["finished", "planned"]
    with pytest.raises(UserError, match=r"unknown sweep 'mine'.*it was last run with: "):
        sweeps.results("mine", str(tmp_path / "runs"))


@pytest.mark.slow
def test_it_trains_and_its_processes_do_not_need_the_folder(studies, tmp_path):
    # The file counts the processes that read it.
    (studies / "mine.py").write_text(f"open({str(tmp_path / 'reads')!r}, 'a').write('x')\n{STUDY}")
    words = [sys.executable, "-m", "sweeps.run", "mine", "--studies", str(studies), "--log-format", "json"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["event"] == "summary"
    assert (tmp_path / "reads").read_text() == "x"
    assert list(sweeps.results("mine", str(tmp_path / "runs"), studies).results["status"]) == ["finished"] * 2
