import dataclasses
import json
import os
import shlex
import socket
import sys
import time

import pytest
from scripted import GRID, row

from search_spaces.space import Sweep, Winner
from sweeps.driver.driver import Driver
from sweeps.planning import saved
from sweeps.planning.plan import Overrides, Plan
from sweeps.records.ledger import Ledger
from sweeps.records.lock import FILE, Holder, Lock
from sweeps.records.snapshot import InTraining, RunSnapshot
from sweeps.records.storage import Storage
from sweeps.run import run
from sweeps.status import lines_of, status, status_of
from trainables.checkpoint import CheckpointHeader, write_checkpoint

SWEEP = saved.find_sweep("quickstart")
ESTIMATORS = Overrides(only="estimators")


@pytest.fixture
def begun(tmp_path):
    """Makes the storage of a quickstart with the given options and ledger rows."""

    def make(overrides: Overrides = ESTIMATORS, rows=lambda members: [row(m) for m in members]):
        place = Storage(str(tmp_path / "runs"), "quickstart")
        place.prepare()
        saved.save_plan(place, overrides)
        plan = Plan(SWEEP, overrides)
        ended = rows([member for members in plan.members.values() for member in members])
        Ledger(place).append(ended) if ended else None
        return place

    return make


def test_a_complete_sweep_asks_for_nothing(begun, command):
    begun()
    code, out, err = command(status, "quickstart")
    assert (code, err) == (0, "")
    assert "complete" in out.splitlines()[0]
    assert "estimators: 20 of 20 done; best bits_per_dim" in out
    assert "python -m" not in out


def test_what_is_missing_is_said_with_the_command_that_goes_on(begun):
    found = status_of(begun(rows=lambda members: [row(m) for m in members[:7]]))
    (study,) = found.studies
    assert (study.members, study.done, study.failed, study.missing) == (20, 7, {}, 13)
    assert found.state == "interrupted"
    text = "\n".join(lines_of(found))
    assert "No run is active" in text
    assert (
        f"To continue: python -m sweeps.run quickstart --only estimators --storage {shlex.quote(found.storage[:-11])}"
        in text
    )
    assert found.retry_command is None


def test_failures_are_counted_by_reason_and_can_be_retried(begun):
    def rows(members):
        failed = {"status": "failed", "metrics": {}}
        return [
            *(row(m, reason="diverged", **failed) for m in members[:2]),
            row(members[2], reason="out_of_memory", **failed),
            row(members[3], reason="error", detail="Traceback …\n  File …\nKeyError: 'x'\n", **failed),
            *map(row, members[4:]),
        ]

    found = status_of(begun(rows=rows))
    (study,) = found.studies
    assert (study.done, study.failed, study.missing) == (16, {"diverged": 2, "out_of_memory": 1, "error": 1}, 0)
    assert found.state == "complete"
    assert found.continue_command is None
    assert found.retry_command is not None
    assert found.retry_command.endswith("--retry-failed")
    assert "4 failed (2 diverged, 1 error, 1 out_of_memory)" in "\n".join(lines_of(found))
    assert "Failed by KeyError: 'x' (1 member)" in lines_of(found)


def test_the_best_is_that_of_the_mean_over_seeds_not_of_one_lucky_seed(begun):
    def rows(members):
        lucky, steady = members[0].labels, members[-1].labels
        assert lucky != steady
        bits = {
            m.key: (0.0 if m.config.seed == 0 else 9.0) if m.labels == lucky else 2.0 if m.labels == steady else 5.0
            for m in members
        }
        return [row(m, metrics={"bits_per_dim": bits[m.key]}) for m in members]

    place = begun(Overrides(only="estimators", seeds=2), rows)
    (study,) = status_of(place).studies
    assert study.best is not None
    assert (study.best.mean, study.best.n, study.best.planned) == (2.0, 2, 2)
    assert study.best.labels == Plan(SWEEP, ESTIMATORS).members["estimators"][-1].labels


def test_numbers_that_are_not_finite_are_never_the_best(begun):
    (study,) = status_of(begun(rows=lambda ms: [row(m, metrics={"bits_per_dim": float("nan")}) for m in ms])).studies
    assert study.best is None


def test_a_search_misses_what_it_has_yet_to_suggest(begun):
    found = status_of(begun(Overrides(only="search"), rows=lambda members: []))
    (study,) = found.studies
    assert (study.done, study.missing, study.unknown) == (0, study.members, study.members)
    assert study.members > 0
    assert "12 missing (12 wait for other members)" in "\n".join(lines_of(found))


def test_the_age_of_the_latest_checkpoint_is_told_while_something_is_missing(begun):
    place = begun(rows=lambda members: [row(members[0])])
    for cohort, age_s in (("a", 7200), ("b", 300)):
        place.write(f"checkpoints/{cohort}/members.safetensors", b"")
        then = time.time() - age_s
        os.utime(place.local_path / "checkpoints" / cohort / "members.safetensors", (then, then))
    found = status_of(place)
    assert found.checkpoint_age_s == pytest.approx(300, abs=30)
    assert "The last checkpoint was saved 5 min ago." in "\n".join(lines_of(found))


def test_what_an_interrupted_run_has_saved_is_told(begun):
    """Two cohorts: one interrupted in epoch 6, with a member dropped; one ended, without moments."""
    place = begun(rows=lambda members: [row(members[0])])
    keys = [member.key for member in saved.known_members(saved.last_plan(place), Ledger(place))]
    cohorts = {
        "a": {"keys": keys[:5], "kept": [0, 1, 2, 3], "dropped": {4: {"epoch": 1}}, "epoch": 6},
        "b": {"keys": keys[5:7], "kept": [0, 1], "dropped": {}, "epoch": 60, "moments": False},
    }
    for name, fields in cohorts.items():
        header = CheckpointHeader.model_validate({"wall_s": 1.0, "metrics": [], **fields})
        place.write(f"checkpoints/{name}/x.safetensors", write_checkpoint(header, {}))
    found = status_of(place)
    (study,) = found.studies
    epochs = saved.last_plan(place).members["estimators"][0].config.epochs
    assert study.saved is not None
    assert (study.saved.members, study.saved.epoch, study.saved.epochs) == (3, 6, epochs)
    assert f"1 of 20 done; 19 missing (3 saved, up to epoch 6 of {epochs})" in "\n".join(lines_of(found))
    with Lock(place):
        assert status_of(place).studies[0].saved is None


def test_a_driver_at_work_is_named_and_nobody_is_asked_to_go_on(begun):
    place = begun(rows=lambda members: [row(members[0])])
    with Lock(place):
        found = status_of(place)
    assert (found.state, found.continue_command) == ("running", None)
    text = "\n".join(lines_of(found))
    assert f"pid {os.getpid()}, since 20" in text
    assert "1 of 20 done; 19 missing" in text
    assert "No member is in training" in text
    assert "No run is active" not in text
    assert status_of(place).state == "interrupted"


def test_what_a_driver_has_handed_out_is_running_and_the_time_left_is_told(begun):
    place = begun(rows=lambda members: [])
    keys = [member.key for member in saved.known_members(saved.last_plan(place), Ledger(place))]
    ledger = Ledger(place)
    ledger.begin_cohort("a", keys[:4])
    ledger.begin_cohort("b", keys[4:8])
    with Lock(place):
        (study,) = status_of(place).studies
        assert (study.done, study.running, study.missing, study.unknown) == (0, 8, 12, 0)
        assert status_of(place).left_s is None
        members = saved.known_members(saved.last_plan(place), ledger)
        ledger.append([row(member) for member in members[:4]])  # the driver was killed before it ended the cohort
        RunSnapshot(600.0, {"estimators": InTraining(12, 60, 3.5)}).write(place)
        found = status_of(place)
        assert (found.studies[0].done, found.studies[0].running, found.studies[0].missing) == (4, 4, 12)
        assert found.left_s == pytest.approx(600, abs=30)
        text = "\n".join(lines_of(found))
        assert "4 of 20 done; 4 running (epoch 12 of 60, best bits_per_dim so far 3.5); 12 missing" in text
        assert "About 10 min left." in text
    assert len(place.list("cohorts", ".json")) == 2, "status has changed something"
    after = status_of(place)
    assert (after.studies[0].running, after.studies[0].in_training, after.left_s) == (0, None, None), "left by a kill"


@pytest.mark.parametrize(
    ("host", "age_s", "state"),
    [("elsewhere", 10, "running"), ("elsewhere", 3600, "interrupted"), (socket.gethostname(), 10, "interrupted")],
)
def test_a_driver_counts_while_it_shows_signs_of_life(begun, host, age_s, state):
    place = begun(rows=lambda members: [])
    gone = dataclasses.replace(Holder.here(), host=host, pid=2**22 + 1)
    place.write(FILE, json.dumps(dataclasses.asdict(gone)).encode())
    then = time.time() - age_s
    os.utime(place.local_path / FILE, (then, then))
    assert status_of(place).state == state


def test_a_damaged_ledger_file_is_named_and_left_where_it_is(begun, command):
    place = begun()
    place.write("ledger/damaged.parquet", b"PAR1")
    code, out, _ = command(status, "quickstart")
    assert code == 0
    assert "ledger/damaged.parquet" in out
    assert place.read("ledger/damaged.parquet") == b"PAR1"


def test_json_says_the_same(begun, command):
    begun(rows=lambda members: [row(m) for m in members[:7]])
    code, out, _ = command(status, "quickstart", "--json")
    assert code == 0
    found = json.loads(out)
    assert (found["sweep"], found["state"]) == ("quickstart", "interrupted")
    assert (found["studies"][0]["done"], found["studies"][0]["missing"]) == (7, 13)
    assert found["studies"][0]["best"]["metric"] == "bits_per_dim"
    assert "--only estimators" in found["continue_command"]


def test_what_was_never_run_is_exit_2_with_the_command(command, tmp_path):
    code, out, err = command(status, "quickstart")
    assert (code, out) == (2, "")
    assert "python -m sweeps.run quickstart" in err
    assert list(tmp_path.iterdir()) == []


def test_what_was_run_under_a_derived_name_only_is_named(command, tmp_path):
    for name in ("quickstart-tpe", "quickstart-smoke", "paper_grid-smoke", "quickstartle"):
        place = Storage(str(tmp_path / "runs"), name)
        place.prepare()
        saved.save_plan(place, ESTIMATORS)
    (tmp_path / "runs" / "quickstart-file").write_text("")
    code, _, err = command(status, "quickstart")
    assert code == 2
    assert "there: quickstart-smoke, quickstart-tpe; run it with: python -m sweeps.run quickstart --storage" in err
    code, out, _ = command(status, "quickstart-tpe")
    assert code == 0
    assert out.startswith("quickstart in ")  # the plan's name


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("quickstart-smoke", "quickstart --scale smoke"),
        ("quickstart-day-gp", "quickstart --scale day --search gp"),
    ],
)
def test_the_command_for_a_derived_sweep_runs_it(name, words, command):
    assert f"run it with: python -m sweeps.run {words} --storage ./runs\n" in command(status, name)[2]
    assert f"run it with: python -m sweeps.run {words}\n" in command(run, name)[2]
    assert command(run, *words.split(), "--plan")[0] == 0


@pytest.mark.parametrize("name", ["quickstart-fast", "quick-start"])
def test_a_name_of_no_derived_sweep_is_unknown(name, command):
    for which in (status, run):
        code, _, err = command(which, name)
        assert code == 2
        assert f"unknown sweep {name!r}" in err


def test_it_starts_neither_ray_nor_mlflow(begun, tmp_path):
    import subprocess

    begun()
    code = "import sys, sweeps.status as s; from sweeps.records.storage import Storage\n"
    code += "s.status_of(Storage('runs', 'quickstart')); print({'ray', 'mlflow'} & sys.modules.keys())"
    ended = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert ended.stdout == "set()\n", ended.stderr


def test_the_sweeps_command_has_it(begun, monkeypatch, capsys, tmp_path):
    from sweeps.__main__ import main

    begun()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["sweeps", "status", "quickstart"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 0
    assert "20 of 20 done" in capsys.readouterr().out


@pytest.mark.parametrize("finished", [0, 1])
def test_members_whose_winner_cannot_be_known_are_not_to_go_on(tmp_path, monkeypatch, finished):
    base = GRID.base | {"batch_size": 400}
    takes = dataclasses.replace(
        GRID, name="takes", base=base, grid=(), compare=(), takes=(Winner("grid", ("optim.lr",)),)
    )
    sweep = Sweep("small", "", (GRID, takes))
    monkeypatch.setattr(saved, "find_sweep", lambda name, studies=None: sweep)
    place = Storage(str(tmp_path / "runs"), "small")
    saved.save_plan(place, Overrides())
    members = Plan(sweep).members["grid"]
    failed = [row(m, status="failed", reason="diverged", metrics={}) for m in members[finished:]]
    Ledger(place).append([*(row(m) for m in members[:finished]), *failed])
    files = sorted(place.local_path.rglob("*"))

    found = status_of(place)
    text = "\n".join(lines_of(found))
    reason = "Not trained: takes needs the best of grid, but no member has finished."
    assert found.studies[1].missing == 2
    assert found.retry_command is not None
    if finished:
        assert (found.state, reason in text) == ("interrupted", False)
        assert "2 missing (2 wait for other members)" in text
        assert found.continue_command is not None
    else:
        assert (found.state, reason in text) == ("complete", True)
        assert "wait for other members" not in text
        assert found.continue_command is None
        driver = Driver(Plan(sweep), Ledger(place), retry_failed=False)
        assert driver.blocked == [found.studies[1].blocked[0]]
        assert not driver.todo
    assert sorted(place.local_path.rglob("*")) == files
