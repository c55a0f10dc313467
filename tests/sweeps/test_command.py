"""The command that continues a sweep is the command that ran, with all its options."""

import dataclasses
import shlex
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
import typer
from scripted import row

from sweeps.cli import given, single
from sweeps.planning import saved, sessions
from sweeps.planning.command import Command, called_here, of_plan
from sweeps.planning.plan import Overrides, Plan, SearchOptions
from sweeps.planning.settings import parse_setting
from sweeps.records.ledger import Ledger
from sweeps.records.storage import Storage
from sweeps.run import NOT_REPEATED, run
from sweeps.status import status, status_of

RUN = typer.main.get_command(single(run))
OPTIONS = {parameter.name: parameter for parameter in RUN.params if parameter.param_type_name == "option"}
HINTS = get_type_hints(run)
SWEEP = saved.find_sweep("quickstart")


def parsed(words):
    return RUN.make_context("run", list(words))


def example(option) -> list[str]:
    """An option with a value that differs from its default and that a shell would split."""
    if option.is_flag:
        return [option.opts[0]]
    value = "7" if {int, float} & {HINTS[option.name], *get_args(HINTS[option.name])} else "it's $HOME; a=b"
    return [option.opts[0], value] * (2 if option.multiple else 1)


def test_what_is_not_repeated_are_options_that_run_has():
    assert set(NOT_REPEATED) < set(OPTIONS)
    assert len(OPTIONS) > 20


@pytest.mark.parametrize("name", sorted(set(OPTIONS) - set(NOT_REPEATED)))
def test_every_option_that_was_given_is_in_the_command(name, tmp_path):
    context = parsed(["quickstart", *example(OPTIONS[name])])
    command = called_here(given(context, NOT_REPEATED))
    typed = shlex.split(command.text(Storage("./runs", "quickstart")))
    assert typed[:4] == ["python", "-m", "sweeps.run", "quickstart"]
    again = parsed(typed[3:])
    assert again.params == context.params
    assert again.params[name] != parsed(["quickstart"]).params[name], "the example is the default"


def test_all_options_together_give_the_same_parameters_again():
    words = [word for name in set(OPTIONS) - set(NOT_REPEATED) for word in example(OPTIONS[name])]
    context = parsed([*words, "quickstart"])
    typed = shlex.split(called_here(given(context, NOT_REPEATED)).text(Storage("./my runs", "quickstart")))
    assert parsed(typed[3:]).params == context.params | {"storage": "./my runs"}


@pytest.mark.parametrize("name", NOT_REPEATED)
def test_what_holds_for_one_call_is_left_out(name):
    context = parsed(["quickstart", *example(OPTIONS[name])])
    assert given(context, NOT_REPEATED) == ("quickstart",)


def test_options_that_were_not_given_are_not_in_it():
    assert given(parsed(["quickstart"])) == ("quickstart",)
    assert given(parsed(["quickstart", "--device", "auto"])) == ("quickstart", "--device", "auto")


def test_failed_members_are_asked_for_once():
    storage = Storage("./runs", "quickstart")
    assert called_here(("quickstart",)).text(storage, "--retry-failed").count("--retry-failed") == 1
    assert called_here(("quickstart", "--retry-failed")).text(storage, "--retry-failed").count("--retry-failed") == 1


def test_from_another_folder_the_command_goes_back_to_the_one_it_was_called_in(tmp_path, monkeypatch):
    (tmp_path / "a b").mkdir()
    monkeypatch.chdir(tmp_path / "a b")
    command = called_here(("quickstart", "--data-dir", "images"))
    monkeypatch.chdir(tmp_path)
    text = command.text(Storage("moved/runs", "quickstart"))
    go, _, rest = text.partition(" && ")
    assert shlex.split(go) == ["cd", str(tmp_path / "a b")]
    assert shlex.split(rest)[3:] == [*command.words, "--storage", str(tmp_path / "moved/runs")]


def test_a_password_is_neither_kept_nor_shown():
    command = called_here(("quickstart", "--tracking-uri", "http://me:planted@host"))
    assert "planted" not in repr(command)
    old = Command(("quickstart", "--tracking-uri", "http://me:planted@host"), str(Path.cwd()))
    assert "planted" not in old.text(Storage("./runs", "quickstart"))


def test_status_tells_the_command_of_the_last_session(command, tmp_path):
    place = Storage("./runs", "quickstart")
    place = Storage(str(tmp_path / "runs"), "quickstart")
    overrides = Overrides(only="estimators")
    plan = Plan(SWEEP, overrides)
    saved.save_plan(place, overrides)
    for device in ("cuda", "cpu"):
        words = ("quickstart", "--only", "estimators", "--device", device, "--data-dir", "my images")
        sessions.record(place, overrides, Command(words, str(tmp_path)))
    failed = row(plan.members["estimators"][0], status="failed", reason="diverged", metrics={})
    Ledger(place).append([failed])
    code, out, _ = command(status, "quickstart")
    expected = "python -m sweeps.run quickstart --only estimators --device cpu --data-dir 'my images'"
    assert code == 0
    assert f"To continue: {expected}\n" in out
    assert f"To train failed members again: {expected} --retry-failed\n" in out


def test_sessions_that_name_no_command_go_on_with_what_the_plan_knows(tmp_path):
    place = Storage(str(tmp_path / "runs"), "quickstart")
    overrides = Overrides(only="estimators", seeds=2)
    saved.save_plan(place, overrides)
    sessions.record(place, overrides)
    Ledger(place).append([row(Plan(SWEEP, overrides).members["estimators"][0])])
    found = status_of(place).continue_command
    assert found is not None
    context = parsed(shlex.split(found)[3:])
    assert (context.params["only"], context.params["seeds"]) == ("estimators", 2)
    assert context.params["storage"] == str(tmp_path / "runs")


@pytest.mark.parametrize(
    "overrides",
    [
        Overrides(),
        Overrides(only="est*", seeds=3, confirm=5, scale="smoke", stand_ins=(("mnist", "digits28"),)),
        Overrides(search=SearchOptions("tpe", 8, 2)),
        Overrides(values=(("optim.lr", 1e-3), ("encoder.hidden", [8, 4]), ("data.name", "npz:my file.npz"))),
    ],
)
def test_the_command_of_a_plan_gives_the_same_plan_again(overrides):
    plan = Plan(SWEEP)
    object.__setattr__(plan, "overrides", overrides)  # options that the sweep may not accept
    params = parsed(of_plan(plan).words).params
    search = overrides.search or SearchOptions("tpe")
    wanted = {
        "name": "quickstart",
        "only": overrides.only,
        "seeds": overrides.seeds,
        "confirm": overrides.confirm,
        "scale": overrides.scale or "full",
        "search": overrides.search and search.sampler,
        "budget": search.budget,
        "halving": overrides.search and search.halving,
        "stand_in": [f"{name}={other}" for name, other in overrides.stand_ins],
    }
    assert {name: params[name] or (wanted[name] if wanted[name] == [] else None) for name in wanted} == wanted
    assert tuple(map(parse_setting, params["set_"] or ())) == overrides.values
    assert dataclasses.fields(Overrides)[-1].name == "confirm", "a field was added that the command may lack"
