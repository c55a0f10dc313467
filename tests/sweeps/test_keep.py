"""What `--keep` leaves of the checkpoints of real, tiny trainings."""

import dataclasses
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from rich.console import Console
from scripted import BASE, launch_options, row

from search_spaces.figures import Images
from search_spaces.space import Study, Sweep, Variants
from sweeps.driver import launch
from sweeps.driver.keep import Keep, remove_weights, wanted
from sweeps.errors import UserError
from sweeps.planning import saved
from sweeps.planning.plan import Member, Overrides, Plan
from sweeps.planning.unfold import unfold
from sweeps.records.checkpoints import NoModelError, trained_model
from sweeps.records.ledger import Ledger, Row
from sweeps.records.storage import Storage
from sweeps.report.html import report
from sweeps.report.reconstructions import Sources
from sweeps.run import run
from sweeps.status import lines_of, status_of
from trainables.cost.size import checkpoint_bytes
from trainables.diagnose import diagnose
from trainables.training import CohortTraining

METHODS = ("fixed", "learned")
LEARNED = {"decoder": {"name": "mlp", "hidden": (8,)}, "likelihood": {"name": "gaussian_log_scale"}}
SHOWN = Study(
    name="shown",
    title="Shown",
    source="nowhere",
    base=BASE | {"estimator": {"name": "reparameterization"}, "data": {"name": "digits", "limit": 64}},
    grid=(Variants("method", {"fixed": {}, "learned": LEARNED}),),
    seeds=(0, 1, 2),
    compare=("method",),
    figures=(Images("method"),),
)
PLAN = Plan(Sweep("small", "Small", (SHOWN,)))
MEMBERS = PLAN.members["shown"]
BEST_SEED = 1
SHAPE = (1, 8, 8)
IMAGES = np.full((1, *SHAPE), 100, np.uint8)


def of(method: str) -> list[Member]:
    return [member for member in MEMBERS if member.labels["method"] == method]


def file(method: str) -> str:
    return f"checkpoints/{method}/members.safetensors"


def files(storage: Storage) -> dict[str, bytes]:
    return {path: storage.read(path) for path in storage.list("checkpoints", "", recursive=True)}


def reconstructed(storage: Storage, member: Member, rows: dict[str, Row]) -> np.ndarray:
    return trained_model(storage, member.config, rows[member.key].epochs, SHAPE).reconstruct(IMAGES).numpy()


@pytest.fixture(scope="module")
def contents() -> dict[str, bytes]:
    """The checkpoints of both methods."""
    found = {}
    for method in METHODS:
        training = CohortTraining([m.config for m in of(method)], device="cpu", data_dir=Path("data"))
        for _ in training:
            pass
        found[file(method)] = training.checkpoint()
    return found


@pytest.fixture
def rows(storage, ledger, contents) -> dict[str, Row]:
    """A storage of ended members; seed 1 is the best of either method."""
    for path, content in contents.items():
        storage.write(path, content)
    saved.save_plan(storage, PLAN.overrides)
    ended = {m.key: row(m, metrics={"bits_per_dim": 1.0 + abs(m.config.seed - BEST_SEED)}) for m in MEMBERS}
    ledger.append(list(ended.values()))
    return ended


def keep(choice: Keep, storage: Storage, rows: dict[str, Row]) -> None:
    keys = wanted(choice, unfold(PLAN, Ledger(storage)), rows)
    if keys is not None:
        remove_weights(storage, rows, keys)


def test_last_keeps_everything(storage, rows, contents):
    keep("last", storage, rows)
    assert files(storage) == contents


def test_best_keeps_the_members_that_the_report_shows_and_their_weights(storage, rows):
    before = {member.key: reconstructed(storage, member, rows) for member in MEMBERS}
    drawn = report(PLAN, MEMBERS, rows, sources=Sources(storage, Path("data")))
    size = sum(map(len, files(storage).values()))
    keep("best", storage, rows)
    assert sum(map(len, files(storage).values())) < size / 2
    for member in MEMBERS:
        if member.config.seed == BEST_SEED:
            np.testing.assert_array_equal(reconstructed(storage, member, rows), before[member.key])
        else:
            with pytest.raises(NoModelError, match="perhaps --keep best or none deleted them"):
                reconstructed(storage, member, rows)
    again = report(PLAN, MEMBERS, rows, sources=Sources(storage, Path("data")))
    assert "figures/shown-figure1.png" in drawn
    assert again["figures/shown-figure1.png"] == drawn["figures/shown-figure1.png"]


def test_the_best_of_a_study_without_figures_is_kept(storage, rows):
    plan = Plan(Sweep("small", "Small", (dataclasses.replace(SHOWN, figures=()),)))
    best = next(member.key for member in of("learned") if member.config.seed == BEST_SEED)
    rows[best] = row(next(m for m in MEMBERS if m.key == best), metrics={"bits_per_dim": 0.1})
    assert wanted("best", unfold(plan, Ledger(storage)), rows) == {best}


def test_none_keeps_nothing_and_the_report_says_so(storage, rows):
    keep("none", storage, rows)
    assert files(storage) == {}
    page = report(PLAN, MEMBERS, rows, sources=Sources(storage, Path("data")))
    assert "figures/shown-figure1.png" not in page
    assert "perhaps --keep best or none deleted them" in page["index.html"].decode()


def test_what_is_left_of_a_cohort_cannot_be_diagnosed_as_a_whole_and_says_why(storage, rows):
    keep("best", storage, rows)
    with pytest.raises(ValueError, match="some members were removed"):
        diagnose([m.config for m in of("fixed")], storage.read(file("fixed")), ["gradient_variance"])


@pytest.mark.parametrize("choice", ["best", "none"])
def test_a_checkpoint_that_a_training_may_go_on_from_stays_as_it_is(storage, rows, contents, choice):
    del rows[of("fixed")[0].key]  # in training, or of another plan
    for member in of("learned"):
        rows[member.key] = row(member, status="failed", reason="lost", metrics={})
    keep(choice, storage, rows)
    assert files(storage) == contents


def test_one_failed_member_does_not_keep_the_weights_of_its_neighbours(storage, rows):
    failed = of("fixed")[0]
    rows[failed.key] = row(failed, status="failed", reason="diverged", metrics={})
    keep("none", storage, rows)
    assert files(storage) == {}


def test_checkpoints_of_members_that_ended_in_other_cohorts_are_deleted(storage, rows, contents):
    training = CohortTraining([m.config for m in of("fixed")[:2]], device="cpu", data_dir=Path("data"))
    next(iter(training))
    storage.write("checkpoints/earlier/members.safetensors", training.checkpoint())
    keep("best", storage, rows)
    assert files(storage).keys() == contents.keys()


def test_a_damaged_checkpoint_stays_as_it_is(storage, rows, contents):
    damaged = contents[file("fixed")][:-1] + b"?"
    storage.write(file("fixed"), damaged)
    storage.write(file("learned"), b"no checkpoint")
    keep("best", storage, rows)
    assert files(storage) == {file("fixed"): damaged, file("learned"): b"no checkpoint"}


@pytest.mark.parametrize("choice", ["best", "none"])
def test_a_run_that_is_killed_on_the_way_leaves_what_the_next_one_completes(storage, rows, monkeypatch, choice):
    before = files(storage)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    change = "write" if choice == "best" else "delete"
    whole, calls = getattr(storage, change), []
    monkeypatch.setattr(storage, change, lambda *args: stop() if calls else (calls.append(args), whole(*args)))
    with pytest.raises(KeyboardInterrupt):
        keep(choice, storage, rows)
    monkeypatch.undo()
    assert len([path for path, content in files(storage).items() if content == before[path]]) == 1
    keep(choice, storage, rows)
    after = files(storage)
    assert all(content != before[path] for path, content in after.items())
    keep(choice, storage, rows)
    assert files(storage) == after


def test_who_has_lost_the_lock_deletes_nothing(storage, rows, contents):
    def lost() -> None:
        raise UserError("the lock is lost")

    storage.fence = lost
    for choice in ("best", "none"):
        with pytest.raises(UserError, match="the lock is lost"):
            keep(choice, storage, rows)
    assert files(storage) == contents


@pytest.mark.parametrize("fault", ["", "report", "MLflow", "storage"])
def test_a_run_deletes_weights_only_after_everything_is_made_of_them(
    storage, rows, contents, monkeypatch, capsys, fault
):
    def fails(*_: object, **__: object) -> None:
        raise UserError("no space left")

    monkeypatch.setattr(launch, "write_outputs", fails if fault == "report" else lambda *_, **__: "page")
    problem = "no answer" if fault == "MLflow" else None
    monkeypatch.setattr(launch, "Tracker", lambda *_: Mock(problem=problem, run_ids={}, links=dict))
    if fault == "storage":
        monkeypatch.setattr(launch, "remove_weights", fails)
    assert launch.launch(PLAN, storage, launch_options(keep="none"), Console(width=200)) == 0
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("--keep none")]
    assert len(told) == bool(fault)
    assert files(storage) == (contents if fault else {})


def test_another_choice_is_refused(command):
    code, out, err = command(run, "quickstart", "--keep", "all")
    assert (code, out) == (2, "")
    assert "--keep must be one of best, last, none, got 'all'" in err


def test_status_says_what_checkpoints_take(tmp_path, contents):
    place = Storage(str(tmp_path / "runs"), "quickstart")
    place.prepare()
    saved.save_plan(place, PLAN.overrides)
    for path, content in contents.items():
        place.write(path, content)
    now = status_of(place)
    size = sum(map(len, contents.values()))
    assert now.checkpoint_bytes == size
    assert f"Checkpoints take {size / 1e6:,.1f} MB" in "\n".join(lines_of(now))


def test_the_plan_says_how_much_is_deleted_in_the_end(command):
    members = Plan(saved.find_sweep("quickstart"), Overrides(only="estimators")).members["estimators"]
    size = sum(checkpoint_bytes(member.config, SHAPE, ended=True) for member in members)
    plan = ("quickstart", "--only", "estimators", "--plan")
    code, out, _ = command(run, *plan, "--keep", "none")
    assert code == 0
    assert f"Then --keep none deletes all weights; all weights take about {size / 1e6:,.1f} MB." in out
    assert "--keep" not in command(run, *plan)[1]
