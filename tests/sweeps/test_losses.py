"""Lost processes and nodes: whether a cohort is retried, and what the driver is told."""

import pickle
import threading
from collections import deque
from pathlib import Path
from types import SimpleNamespace

import pytest
from ray.exceptions import ActorDiedError, OutOfMemoryError
from scripted import SMALL, result

from sweeps.on_ray import execute
from sweeps.on_ray.cluster import Resources
from sweeps.on_ray.losses import LOSSES, NODES, Losses
from sweeps.on_ray.watch import RayLostError, Watch
from sweeps.planning.plan import Plan, PlannedCohort
from trainables.checkpoint import CheckpointFile, last_saved_ns
from trainables.reports import Outcome, Report, failures


def tries(losses: Losses, *, saved_ns: int = 0, dead_nodes: int = 0) -> int:
    """How often a cohort is retried that is lost repeatedly while nothing else changes."""
    count = 0
    while losses.again("cohort", saved_ns=saved_ns, dead_nodes=dead_nodes):
        count += 1
        assert count < 1000
    return count


def test_a_cohort_that_does_not_get_on_is_given_up():
    assert tries(Losses()) == LOSSES


def test_a_checkpoint_starts_the_count_anew():
    losses = Losses()
    assert [losses.again("cohort", saved_ns=saved, dead_nodes=0) for saved in range(100)] == [True] * 100
    assert tries(losses, saved_ns=99) == LOSSES - 1
    assert tries(losses, saved_ns=100) == LOSSES


def test_a_checkpoint_of_an_earlier_run_is_no_progress():
    assert tries(Losses(), saved_ns=1) == LOSSES


def test_new_checkpoints_are_progress_though_the_clock_was_set_back():
    losses = Losses()
    for hour in range(10 * LOSSES):
        assert losses.again("cohort", saved_ns=(1000 - hour) * 3600 * 10**9, dead_nodes=0)


def test_each_node_that_died_excuses_a_loss_but_no_cohort_brings_down_nodes_for_ever():
    assert tries(Losses(), dead_nodes=5) == LOSSES + 5
    assert tries(Losses(), dead_nodes=10_000) == LOSSES + NODES


def test_cohorts_are_counted_apart():
    losses = Losses()
    tries(losses)
    assert losses.again("another", saved_ns=0, dead_nodes=0)


def test_the_time_of_the_latest_checkpoint(tmp_path):
    folder = str(tmp_path / "cohort")
    assert last_saved_ns(folder) == 0
    CheckpointFile(folder, "members-0-of-2").write(b"1")
    first = last_saved_ns(folder)
    assert first == (tmp_path / "cohort" / "members-0-of-2.safetensors").stat().st_mtime_ns
    (tmp_path / "cohort" / "members.safetensors.partial").write_bytes(b"newer, but not whole")
    assert last_saved_ns(folder) == first
    CheckpointFile(folder, "members-1-of-2").write(b"2")
    assert last_saved_ns(folder) > first


class Work:
    """Hands out a plan's cohorts, and keeps what it is told."""

    def __init__(self):
        members = Plan(SMALL).members["grid"]
        self.queue = deque([PlannedCohort(members[:4]), PlannedCohort(members[4:])])
        self.running = 0
        self.outcomes: list[Outcome] = []

    def next(self):
        self.running += bool(self.queue)
        return self.queue.popleft() if self.queue else None

    def exhausted(self):
        return not self.queue and not self.running

    def waiting(self):
        return len(self.queue)

    def progressed(self, cohort, since, history):
        pass

    def check(self):
        pass

    def ended(self, cohort, outcomes):
        self.running -= 1
        self.outcomes += outcomes


@pytest.fixture
def work():
    return Work()


@pytest.fixture
def dispatcher(work, monkeypatch, tmp_path):
    monkeypatch.setattr(execute, "_dead_nodes", lambda: 0)
    places = execute.Places(str(tmp_path), Path("data"))
    return execute._Dispatcher(work, Resources("cpu", 2), places, "scratch", execute._Interruption(), probe=False)


def report(detail: str) -> dict:
    return Report(outcomes=failures(["key"], "error", detail)).plain()


def lose(dispatcher, trial: str) -> None:
    """Reports a trial as Tune and our listener do when its process was killed."""
    dispatcher.on_trial_complete(trial, error=True)
    dispatcher.lost(trial, "killed")


def test_a_lost_cohort_is_handed_out_again_and_the_driver_hears_nothing_of_it(work, dispatcher, caplog):
    first = dispatcher.suggest("a")
    dispatcher.suggest("b")
    lose(dispatcher, "a")
    assert dispatcher.suggest("c") == first
    assert (work.outcomes, work.running) == ([], 2)
    assert "4 members was lost; they continue from their last checkpoint" in caplog.text
    # A late report of the lost trial is ignored.
    dispatcher.heard("a", report("too late"))
    assert work.outcomes == []
    dispatcher.heard("c", report("in time"))
    dispatcher.on_trial_complete("c")
    assert [outcome.detail for outcome in work.outcomes] == ["in time"]
    assert dispatcher.suggest("d") is None, "b still runs"


def test_a_cohort_that_is_always_lost_fails_as_lost_and_harms_no_other(work, dispatcher):
    other = dispatcher.suggest("other")
    for attempt in range(LOSSES + 1):
        assert dispatcher.suggest(f"t{attempt}") not in (None, other)
        lose(dispatcher, f"t{attempt}")
    assert [(o.status, o.reason, o.detail) for o in work.outcomes] == [("failed", "lost", "killed")] * 4
    members = Plan(SMALL).members["grid"][:4]
    dispatcher.heard("other", Report(outcomes=tuple(map(result, members))).plain())
    dispatcher.on_trial_complete("other")
    assert dispatcher.suggest("none") == "FINISHED"


@pytest.mark.parametrize("error", [OutOfMemoryError("the node is running low on memory"), ActorDiedError()])
def test_a_process_that_was_killed_is_lost_and_its_cohort_is_handed_out_again(work, dispatcher, tmp_path, error):
    file = tmp_path / "error.pkl"
    file.write_bytes(pickle.dumps(error))
    first = dispatcher.suggest("a")
    dispatcher.on_trial_complete("a", error=True)
    trial = SimpleNamespace(trial_id="a", pickled_error_file=str(file), error_file=None)
    execute._TrialEvents(dispatcher).on_trial_error(1, [], trial)
    assert work.outcomes == []
    assert dispatcher.suggest("b") == first


def test_a_trial_that_reported_its_end_before_it_was_lost_has_ended(work, dispatcher):
    dispatcher.suggest("a")
    dispatcher.heard("a", report("all"))
    dispatcher.lost("a", "killed")
    assert [outcome.detail for outcome in work.outcomes] == ["all"]
    assert len(work.queue) == 1


def test_after_max_hours_nothing_is_handed_out_and_cohorts_are_asked_to_save(work, dispatcher, monkeypatch, caplog):
    now = 1000.0
    asked: list[str] = []
    monkeypatch.setattr(execute.time, "monotonic", lambda: now)
    monkeypatch.setattr(execute, "ask_to_stop", asked.append)
    monkeypatch.setattr(execute, "forget_stop", lambda folder: None)
    dispatcher._interruption = execute._Interruption(max_hours=0.5)
    assert dispatcher.suggest("a") is not None
    now += 1799
    dispatcher.step(training=1)
    assert not asked
    now += 2
    dispatcher.step(training=1)
    for thread in threading.enumerate():
        if thread.name == "ask-to-stop":
            thread.join()
    assert asked == ["scratch"]
    assert "0.5 hours have passed (--max-hours): saving members in training" in caplog.text
    assert dispatcher.suggest("b") == "FINISHED"
    now += execute.SAVING_S + 1
    with pytest.raises(KeyboardInterrupt):
        dispatcher.step(training=1)


@pytest.mark.parametrize(("interrupted", "raised"), [(True, KeyboardInterrupt), (False, RayLostError)])
def test_after_a_signal_the_end_of_ray_is_an_interruption(work, dispatcher, interrupted, raised):
    watch = Watch(lambda: None)
    watch._problem = "Ray's raylet has ended"
    dispatcher._resources = Resources("cpu", 2, watch=watch)
    if interrupted:
        dispatcher._interruption._note()
    with pytest.raises(raised):
        dispatcher.step(training=1)
    assert watch.interrupted == interrupted


def test_a_cohort_that_is_killed_for_memory_again_and_again_fails_for_that_reason(work, dispatcher):
    trial = "a"
    dispatcher.suggest(trial)
    for number in range(LOSSES):
        dispatcher.on_trial_complete(trial, error=True)
        dispatcher.lost(trial, "the node's memory is nearly full", "out_of_memory")
        assert work.outcomes == []
        trial = f"retry {number}"
        dispatcher.suggest(trial)
    dispatcher.lost(trial, "the node's memory is nearly full", "out_of_memory")
    assert {outcome.reason for outcome in work.outcomes} == {"out_of_memory"}
    assert len(work.outcomes) == 4
