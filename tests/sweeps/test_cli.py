"""User errors give one line and exit code 2, write nothing and do not start Ray."""

import io
import re
import socket
import sys

import pytest
from PIL import Image
from rich.console import Console

from search_spaces import get_sweep, list_sweeps
from sweeps.planning.plan import Plan
from sweeps.records.storage import Storage
from sweeps.report.__main__ import report
from sweeps.run import print_plan, print_sizes, run
from sweeps.ui import ui

MISTAKES = [
    (["quickstrat"], "known: .*quickstart"),
    ([], "give the name of a sweep: .*quickstart"),
    (["quickstart", "--set", "optim.lrr=1"], "optim.lr'"),
    (["quickstart", "--set", "optim.lr=0"], "optim.lr"),
    (["quickstart", "--set", "estimator.temperature_forward=-1"], "temperature_forward.*-1"),
    (["quickstart", "--set", "epochs=0"], "epochs.*0"),
    (["quickstart", "--max-hours", "0"], "--max-hours must be above 0, got 0"),
    (["quickstart", "--max-hours", "nan"], "--max-hours must be above 0, got nan"),
    (["quickstart", "--set", "epochs"], "KEY=VALUE"),
    (["quickstart", "--set", "data.name=cifra"], "data"),
    (["quickstart", "--only", "nothing"], "estimators, temperatures, search"),
    (["quickstart", "--storage", "nosuch://x"], "--storage"),
    (["quickstart", "--storage", "FILE"], "--storage"),
    (["quickstart", "--tracking-uri", "mlruns"], "--tracking-uri.*mlruns"),
    (["quickstart", "--tracking-uri", "http://"], "--tracking-uri.*http://"),
    (["quickstart", "--tracking-uri", ""], "--tracking-uri"),
    (["quickstart", "--seeds", "0"], "--seeds"),
    (["quickstart", "--pack", "many"], "--pack"),
    (["quickstart", "--device", "tpu"], "--device"),
    (["quickstart", "--precision", "fp16"], "--precision must be one of auto, float32, bf16.*'fp16'"),
    (["quickstart", "--precision", "bf16", "--set", "precision=bf16"], "--precision and --set precision"),
    (["quickstart", "--set", "precision=fp16"], "precision.*fp16"),
    (["quickstart", "--no-such-option"], "no-such-option"),
]


@pytest.mark.parametrize(("arguments", "message"), MISTAKES, ids=lambda value: " ".join(value)[:40])
def test_a_mistake_is_one_line_and_exit_code_2(command, tmp_path, arguments, message):
    (tmp_path / "FILE").write_text("in the way")
    code, out, err = command(run, *arguments)
    assert code == 2
    assert out == ""
    assert err.count("\n") == 1
    assert re.search(message, err), err
    assert "Traceback" not in err
    assert [path.name for path in tmp_path.iterdir()] == ["FILE"]
    assert "ray" not in sys.modules or not sys.modules["ray"].is_initialized()


@pytest.fixture(scope="module")
def own_data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    (folder / "bad.npz").write_bytes(b"no archive")
    (folder / "two").mkdir()
    for size in (4, 5):
        Image.new("L", (size, size)).save(folder / "two" / f"{size}.png")
    return folder


@pytest.mark.parametrize("plan", [True, False])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("npz:bad.npz", "bad.npz is not a numpy archive"),
        ("npz:nothere.npz", "there is no nothere.npz in "),
        ("folder:nothere", "there is no folder .*nothere"),
        ("folder:two", "5.png is 5x5 and .*4.png is 4x4; all must have the same size"),
    ],
)
def test_own_images_that_cannot_be_used_are_one_line_and_exit_code_2(command, own_data, name, message, plan):
    arguments = ["quickstart", "--only", "search", "--set", f"data.name={name}", "--data-dir", str(own_data)]
    code, _, err = command(run, *arguments, *(["--plan"] if plan else []))
    assert code == 2
    assert err.count("\n") == 1
    assert re.search(f"data set '{name}': .*{message}", err), err
    assert "ray" not in sys.modules or not sys.modules["ray"].is_initialized()


def test_list_and_plan_write_nothing(command, tmp_path):
    code, out, _ = command(run, "--list")
    assert code == 0
    for name in list_sweeps():
        assert re.search(rf"^{name} .* {len(get_sweep(name).studies)}\s*$", out, re.MULTILINE), out
    code, out, _ = command(run, "quickstart", "--plan")
    assert code == 0
    assert "64" in out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["quickstart", "paper_grid"])
def test_the_plan_at_60_columns_is_whole(tmp_path, name):
    def printed(width: int) -> list[str]:
        console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
        plan = Plan(get_sweep(name))
        print_plan(console, plan, Storage(str(tmp_path), name), "cpu", None, tmp_path)
        return console.file.getvalue().splitlines()  # pyright: ignore

    wide, narrow = printed(1000), printed(60)
    assert max(map(len, narrow[:-1])) <= 60
    text = " ".join(" ".join(narrow).split())
    assert "…" not in text
    rows = [re.split(r"\s{2,}", line.strip()) for line in wide[1:-1]]
    assert len(rows) > 3
    headings = ("members", "done", "cohorts", "epochs left", "hours", "MB")
    for study, *_, members, done, cohorts, epochs, hours, megabytes in rows:
        values = zip(headings, (members, done, cohorts, epochs, hours, megabytes), strict=True)
        assert f"{study}: " in text
        assert ", ".join(f"{heading} {value}" for heading, value in values) in text


@pytest.mark.parametrize("width", [60, 200])
def test_the_list_says_what_sweeps_take_and_is_whole(tmp_path, width):
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    print_sizes(console, Storage(str(tmp_path), "all"), "cpu", tmp_path)
    lines = console.file.getvalue().splitlines()  # pyright: ignore
    assert max(map(len, lines)) <= width
    text = " ".join(" ".join(lines).split())
    assert "…" not in text
    for name in list_sweeps():
        plan = Plan(get_sweep(name))
        values = {"studies": f"{len(plan.studies):,}", "members": f"{plan.total():,}"}
        separator = ", ".join(f"{heading} {value}" for heading, value in values.items())
        row = (
            f"{name}: title {plan.sweep.title}, {separator}, hours "
            if width == 60
            else (f"{name} {plan.sweep.title} {' '.join(values.values())} ")
        )
        assert row in text
    assert re.search(r"Hours: with \d+ cpu devices? busy, at rates", text)


def test_a_report_of_what_was_never_run_says_how_to_run_it(command):
    code, _, err = command(report, "quickstart")
    assert code == 2
    assert "python -m sweeps.run quickstart" in err


def test_the_user_interface_needs_runs_and_a_free_port(command, tmp_path):
    code, _, err = command(ui)
    assert code == 2
    assert "sweeps.run" in err
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "mlflow.db").write_text("")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, _, err = command(ui, "--port", str(port))
    assert code == 2
    assert f"port {port}" in err
    assert "--port" in err
    assert err.count("\n") == 1


class Server:
    """A fake of MLflow's server; it ends with an exit code, or answers after some requests."""

    def __init__(self, events: list[str], code: int | None = None):
        self.events, self.returncode = events, code

    def __call__(self, command, **options):
        self.events.append("started")
        return self

    def poll(self):
        return self.returncode

    def wait(self):
        self.events.append("waited for")
        return 0

    def terminate(self):
        pass


@pytest.fixture
def served(command, tmp_path, monkeypatch):
    """Runs `sweeps.ui` with a fake of MLflow's server; returns the exit code, stderr and the events."""

    def call(answers: list[bool], code: int | None = None):
        (tmp_path / "runs").mkdir()
        (tmp_path / "runs" / "mlflow.db").write_text("")
        events: list[str] = []
        asked = iter(answers)

        def answer(url):
            found = next(asked)
            events.append(f"answers {found}")
            return found

        monkeypatch.setattr("sweeps.ui._answers", answer)
        monkeypatch.setattr("sweeps.ui._ASK_EVERY_S", 0.0)
        monkeypatch.setattr("sweeps.ui.subprocess.Popen", Server(events, code))
        monkeypatch.setattr("sweeps.ui.print", lambda text, **options: events.append(text), raising=False)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        ended, _, err = command(ui, "--port", str(port))
        return ended, err, [event.replace(str(port), "PORT") for event in events]

    return call


def test_the_address_is_printed_when_it_answers_and_not_before(served):
    code, err, events = served([False, False, True])
    assert (code, err) == (0, "")
    printed = events.index("MLflow on http://127.0.0.1:PORT (Ctrl-C ends it)")
    assert events[:printed] == ["started", "answers False", "answers False", "answers True"]
    assert events[printed + 1] == "waited for"


def test_a_server_that_ends_before_it_answers_is_one_line(served):
    code, err, events = served([False], code=1)
    assert code == 2
    assert "MLflow's server ended with exit code 1; " in err
    assert not any("http" in event for event in events)
