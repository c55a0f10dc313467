import dataclasses
import json
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import parse_qsl

import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from scipy import stats
from scripted import SMALL, result, row

from search_spaces import Sweep, get_sweep
from sweeps.analysis.labels import run_name
from sweeps.planning import sessions
from sweeps.planning.command import called_here
from sweeps.planning.plan import Overrides, Plan
from sweeps.records.lock import Lock
from sweeps.records.lock_file import FILE
from sweeps.records.storage import Storage
from sweeps.tracking import links, sqlite
from sweeps.tracking import runs as mlflow_runs
from sweeps.tracking import tracker as tracking
from sweeps.tracking.known import known_runs
from sweeps.tracking.tracker import Tracker
from sweeps.tracking.uri import of_database

ONLY = Overrides(only="grid")
MEMBERS = Plan(SMALL, ONLY).members["grid"][:3]
DATA = Path("data")


@pytest.fixture(scope="module")
def database(tmp_path_factory, empty_database):
    """One database for the module. Every test has an experiment of its own."""
    return empty_database(tmp_path_factory.mktemp("mlflow") / "mlflow.db")


@pytest.fixture
def sweep(request) -> Sweep:
    return dataclasses.replace(SMALL, name=request.node.name[:60].replace("[", "_").replace("]", ""))


@pytest.fixture
def tracker(database, sweep, storage):
    def make() -> Tracker:
        return Tracker(database, Plan(sweep, ONLY), storage, DATA)

    make.client = MlflowClient(database)
    make.runs = lambda: make.client.search_runs(
        [make.client.get_experiment_by_name(sweep.name).experiment_id], max_results=1000
    )
    return make


def by_kind(runs):
    kinds: dict[str, list] = {}
    for run in runs:
        kinds.setdefault(run.data.tags["kind"].split()[0], []).append(run)
    return kinds


def statuses(tracker):
    """The statuses of all runs but those of configurations, which lack seeds in most of these tests."""
    return {run.info.status for run in tracker.runs() if run.data.tags["kind"] != "configuration"}


def history(members, epochs):
    return {"elbo": np.arange(float(epochs * len(members))).reshape(epochs, len(members))}


def settle(t: Tracker) -> None:
    """Waits until the tracker has written everything."""
    t._jobs.join()


def stop(t: Tracker) -> None:
    """Ends a tracker without closing anything, as the end of its process would."""
    settle(t)
    t._do = lambda job: None
    t.close("FINISHED")


def test_runs_are_nested_tagged_and_complete(tracker):
    t = tracker()
    rows = {member.key: row(member) for member in MEMBERS}
    rows[MEMBERS[2].key] = row(MEMBERS[2], status="failed", reason="diverged", metrics={})
    t.start(MEMBERS, {})
    t.progressed(MEMBERS, 0, history(MEMBERS, 1))
    t.ended(MEMBERS, rows)
    t.close("FINISHED")
    assert t.problem is None
    kinds = by_kind(tracker.runs())
    (sweep,), (study,), members = kinds["sweep"], kinds["study"], kinds["member"]
    configurations = {run.info.run_id: run for run in kinds["configuration"]}
    assert study.data.tags["mlflow.parentRunId"] == sweep.info.run_id
    assert {c.data.tags["mlflow.parentRunId"] for c in configurations.values()} == {study.info.run_id}
    for run in members:
        above = configurations[run.data.tags["mlflow.parentRunId"]]
        assert above.data.tags["configuration"] == run.data.tags["configuration"]
        assert run.info.run_name.startswith(above.info.run_name.split()[0])
    assert {m.data.tags["key"] for m in members} == {m.key for m in MEMBERS}
    one = next(m for m in members if m.data.tags["key"] == MEMBERS[1].key)
    assert one.data.tags["sweep"] == sweep.data.tags["sweep"]
    assert (one.data.tags["study"], one.data.tags["seed"]) == ("grid", str(MEMBERS[1].config.seed))
    assert one.data.params["optim.lr"] == str(MEMBERS[1].config.optim.lr)
    assert [m.step for m in tracker.client.get_metric_history(one.info.run_id, "elbo")] == [1, 2]
    assert sorted(statuses(tracker)) == ["FAILED", "FINISHED"]
    assert t.run_ids[("grid", MEMBERS[1].key)] == one.info.run_id


# --- configurations --------------------------------------------------------------------------------------------------


def seeded(sweep, seeds):
    """The members of the grid with that many seeds, by configuration, and made-up rows."""
    plan = Plan(sweep, Overrides(only="grid", seeds=seeds))
    members = plan.members["grid"]
    rows = {
        m.key: row(
            m,
            metrics={"bits_per_dim": m.config.optim.lr + m.config.seed**2, "kl": 1.0},
            ended=datetime(2026, 1, 1, 0, 0, m.config.seed, tzinfo=UTC),
        )
        for m in members
    }
    return plan, members, rows


def followed(database, sweep, storage, seeds, members=None, rows=None, close="FINISHED"):
    """Runs a session in which these members end."""
    plan, every, known = seeded(sweep, seeds)
    t = Tracker(database, plan, storage, DATA)
    t.start([], {})
    for member in members or every:
        t.ended([member], rows or known)
    t.close(close)
    assert t.problem is None
    return t


def tree(tracker):
    """By the name of each configuration: its run, and the runs of its members; checks that nothing is elsewhere."""
    kinds = by_kind(tracker.runs())
    found = {run.info.run_id: (run, []) for run in kinds.get("configuration", [])}
    for run in kinds["member"]:
        found[run.data.tags["mlflow.parentRunId"]][1].append(run)
    (study,) = kinds["study"]
    assert {run.data.tags["mlflow.parentRunId"] for run, _ in found.values()} == {study.info.run_id}
    return {run.info.run_name: each for run, *rest in found.values() for each in [(run, *rest)]}


def check_means(tracker, seeds, configurations=4):
    found = tree(tracker)
    assert len(found) == configurations
    for run, members in found.values():
        assert len(members) == seeds
        values = np.array([member.data.params["optim.lr"] for member in members], float)
        values += np.array([int(member.data.tags["seed"]) ** 2 for member in members])
        assert run.data.metrics["n"] == seeds == int(run.data.tags["n"])
        assert run.data.metrics["bits_per_dim"] == pytest.approx(values.mean())
        assert run.data.metrics["bits_per_dim.stderr"] == pytest.approx(stats.sem(values))
        assert run.data.params == {k: v for k, v in members[0].data.params.items() if k != "seed"}
        assert run.info.status == "FINISHED"
        assert run.info.end_time == max(member.info.end_time for member in members)
        assert {m.info.status for m in members} == {"FINISHED"}
        assert {member.data.tags["configuration"] for member in members} == {run.data.tags["configuration"]}


def test_a_configuration_has_mean_and_standard_error_over_its_seeds(tracker, database, sweep, storage):
    followed(database, sweep, storage, 3)
    check_means(tracker, 3)


def test_more_seeds_update_the_mean_and_fewer_leave_it(tracker, database, sweep, storage):
    followed(database, sweep, storage, 2)
    followed(database, sweep, storage, 4)
    check_means(tracker, 4)
    followed(database, sweep, storage, 2)
    check_means(tracker, 4)


def test_one_seed_needs_no_configuration_and_gets_one_with_the_second(tracker, database, sweep, storage):
    followed(database, sweep, storage, 1)
    kinds = by_kind(tracker.runs())
    assert "configuration" not in kinds
    assert {run.data.tags["mlflow.parentRunId"] for run in kinds["member"]} == {kinds["study"][0].info.run_id}
    assert len({run.data.tags["configuration"] for run in kinds["member"]}) == 4
    followed(database, sweep, storage, 2)
    check_means(tracker, 2)
    followed(database, sweep, storage, 1)
    check_means(tracker, 2)


def test_runs_that_an_earlier_version_put_below_their_study_are_moved(tracker, database, sweep, storage):
    followed(database, sweep, storage, 2)
    kinds = by_kind(tracker.runs())
    for run in kinds["configuration"]:
        tracker.client.delete_run(run.info.run_id)
    for run in kinds["member"]:
        tracker.client.set_tag(run.info.run_id, "mlflow.parentRunId", kinds["study"][0].info.run_id)
        tracker.client.delete_tag(run.info.run_id, "configuration")
    plan, members, rows = seeded(sweep, 2)
    t = Tracker(database, plan, storage, DATA)
    t.start(members, rows)
    t.close("FINISHED")
    check_means(tracker, 2)
    assert all(run.info.start_time < run.info.end_time for run, _ in tree(tracker).values())


def test_a_second_session_calls_nothing_for_configurations_that_are_told(
    tracker, database, sweep, storage, monkeypatch
):
    followed(database, sweep, storage, 2)
    before = {run.info.run_id: run.to_dictionary() for run, _ in tree(tracker).values()}
    calls, working = [], MlflowClient.log_batch
    monkeypatch.setattr(MlflowClient, "log_batch", lambda self, *a, **k: (calls.append(a[0]), working(self, *a, **k)))
    followed(database, sweep, storage, 2)
    assert not calls or not set(calls) & before.keys()
    assert {run.info.run_id: run.to_dictionary() for run, _ in tree(tracker).values()} == before


def test_a_configuration_without_all_seeds_is_killed_and_goes_on(tracker, database, sweep, storage):
    members = seeded(sweep, 2)[1]
    followed(database, sweep, storage, 2, members[:3], close="KILLED")
    told = {(run.info.status, run.data.metrics["n"], len(below)) for run, below in tree(tracker).values()}
    assert told == {("FINISHED", 2.0, 2), ("KILLED", 1.0, 1)}
    followed(database, sweep, storage, 2)
    check_means(tracker, 2)


def test_a_configuration_of_a_killed_driver_is_taken_up(tracker, database, sweep, storage):
    plan, members, _ = seeded(sweep, 2)
    killed = Tracker(database, plan, storage, DATA)
    killed.start([], {})
    killed.progressed(members[:2], 0, history(members[:2], 1))
    stop(killed)
    assert {run.info.status for run, _ in tree(tracker).values()} == {"RUNNING"}
    followed(database, sweep, storage, 2)
    check_means(tracker, 2)


def test_failed_seeds_are_not_in_the_mean_until_they_are_trained_again(tracker, database, sweep, storage):
    _, members, rows = seeded(sweep, 2)
    failed = {key: row(m, status="failed", reason="diverged", metrics={}) for m in members if (key := m.key)}
    one = rows | {members[1].key: failed[members[1].key]}
    one |= {m.key: failed[m.key] for m in members[2:4]}
    followed(database, sweep, storage, 2, rows=one)
    told = sorted((run.info.status, run.data.metrics.get("n", 0)) for run, _ in tree(tracker).values())
    assert told == [("FAILED", 0), ("FINISHED", 1), ("FINISHED", 2), ("FINISHED", 2)]
    followed(database, sweep, storage, 2)
    check_means(tracker, 2)


def test_where_answers_for_configurations_are_lost_there_is_one_of_each(tracker, database, sweep, storage, monkeypatch):
    monkeypatch.setattr(tracking, "RETRY_AFTER_S", 0.0)
    working, lost = MlflowClient.create_run, []

    def failing(self, experiment, started, tags, **options):
        answer = working(self, experiment, started, tags, **options)
        if tags["kind"] == "configuration" and len(lost) < 2:
            lost.append(answer)
            raise ConnectionError("the answer is lost")
        return answer

    monkeypatch.setattr(MlflowClient, "create_run", failing)
    followed(database, sweep, storage, 2)
    assert len(lost) == 2
    check_means(tracker, 2)


@pytest.mark.parametrize("seeds", [1, 2])
def test_seeds_that_confirm_are_averaged_alone(tracker, database, sweep, storage, seeds):
    plan = Plan(sweep, Overrides(only="grid", seeds=seeds, confirm=3))
    chosen = plan.members["grid"]
    members = [*chosen, *plan.confirming(plan.studies[0], chosen[:1])]
    values = {m.key: m.config.optim.lr + 10.0 * m.confirms + m.config.seed % 7 for m in members}
    t = Tracker(database, plan, storage, DATA)
    t.start([], {})
    t.ended(members, {m.key: row(m, metrics={"bits_per_dim": values[m.key]}) for m in members})
    t.close("FINISHED")
    assert t.problem is None
    kinds = by_kind(tracker.runs())
    (fresh,) = (run for run in kinds["configuration"] if run.info.run_name.endswith(", fresh seeds"))
    own = [values[m.key] for m in members if m.confirms]
    assert len(own) == 3
    assert (fresh.info.status, fresh.data.metrics["n"]) == ("FINISHED", 3)
    assert fresh.data.metrics["bits_per_dim"] == pytest.approx(np.mean(own))
    below = [run for run in kinds["member"] if run.data.tags["mlflow.parentRunId"] == fresh.info.run_id]
    assert {run.data.tags["key"] for run in below} == {m.key for m in members if m.confirms}
    others = [run for run in kinds["configuration"] if run is not fresh]
    assert [run.data.metrics["n"] for run in others] == ([2] * 4 if seeds == 2 else [])
    assert {run.info.status for run in tracker.runs()} == {"FINISHED"}


def test_two_runs_of_one_configuration_become_one(tracker, database, sweep, storage):
    followed(database, sweep, storage, 2)
    (run, below), *_ = tree(tracker).values()
    kept = {name: value for name, value in run.data.tags.items() if not name.startswith("mlflow.run")}
    other = tracker.client.create_run(run.info.experiment_id, tags=kept, run_name=run.info.run_name)
    tracker.client.set_tag(below[0].info.run_id, "mlflow.parentRunId", other.info.run_id)
    followed(database, sweep, storage, 2)
    assert len(by_kind(tracker.runs())["configuration"]) == 4
    assert all(len(members) == 2 for _, members in tree(tracker).values())


def test_an_interruption_leaves_no_run_running(tracker):
    t = tracker()
    t.start(MEMBERS, {})
    t.progressed(MEMBERS, 0, history(MEMBERS, 1))
    t.close("KILLED")
    assert statuses(tracker) == {"KILLED"}
    assert len(tracker.runs()) == 7


def test_a_call_that_was_on_its_way_at_a_takeover_doubles_no_step(tracker):
    displaced = tracker()
    displaced.start(MEMBERS, {})
    displaced.progressed(MEMBERS, 0, history(MEMBERS, 1))
    settle(displaced)
    rows = {member.key: row(member) for member in MEMBERS}
    successor = tracker()
    successor.start(MEMBERS, {})
    successor.ended(MEMBERS, rows)
    successor.close("FINISHED")
    time.sleep(0.01)
    displaced.ended(MEMBERS, rows)
    stop(displaced)
    assert displaced.problem is None
    assert statuses(tracker) == {"FINISHED"}
    for run in by_kind(tracker.runs())["member"]:
        assert [metric.step for metric in tracker.client.get_metric_history(run.info.run_id, "elbo")] == [1, 2]


def test_after_a_takeover_a_tracker_changes_nothing_more(tracker, storage):
    displaced = tracker()
    with Lock(storage):
        displaced.start(MEMBERS, {})
        displaced.progressed(MEMBERS, 0, history(MEMBERS, 1))
        settle(displaced)
        rows = {member.key: row(member) for member in MEMBERS}
        storage.local_path.joinpath(FILE).write_bytes(b"another holder")
        successor = tracker()
        successor._storage = Storage(storage.uri, storage.name)  # as in another process: it has no fence of this lock
        successor.start(MEMBERS, {})
        successor.ended(MEMBERS, rows)
        settle(successor)
        before = [run.to_dictionary() for run in tracker.runs()]
        displaced.progressed(MEMBERS, 1, history(MEMBERS, 1))
        displaced.ended(MEMBERS[:1], {MEMBERS[0].key: row(MEMBERS[0], status="failed", reason="error")})
        displaced.close("KILLED")
        assert [run.to_dictionary() for run in tracker.runs()] == before
    successor.close("FINISHED")
    assert statuses(tracker) == {"FINISHED"}
    for run in by_kind(tracker.runs())["member"]:
        assert [metric.step for metric in tracker.client.get_metric_history(run.info.run_id, "elbo")] == [1, 2]


def test_after_a_kill_runs_are_taken_up_and_no_step_is_logged_twice(tracker):
    killed = tracker()
    killed.start(MEMBERS, {})
    killed.progressed(MEMBERS, 0, history(MEMBERS, 1))
    stop(killed)
    assert statuses(tracker) == {"RUNNING"}

    t = tracker()
    t.start(MEMBERS, {})
    t.progressed(MEMBERS, 0, history(MEMBERS, 1))
    t.ended(MEMBERS, {member.key: row(member) for member in MEMBERS})
    t.close("FINISHED")
    assert t.problem is None
    assert len(tracker.runs()) == 7
    assert statuses(tracker) == {"FINISHED"}
    for run_id in t.run_ids.values():
        assert [m.step for m in tracker.client.get_metric_history(run_id, "elbo")] == [1, 2]


def test_what_mlflow_misses_is_filled_in_from_the_ledger_once(tracker):
    rows = {member.key: row(member) for member in MEMBERS}
    for _ in range(2):
        t = tracker()
        t.start(MEMBERS, rows)
        t.close("FINISHED")
        assert t.problem is None
    members = by_kind(tracker.runs())["member"]
    assert len(members) == 3
    assert members[0].data.metrics["elbo"] == pytest.approx(
        result(next(m for m in MEMBERS if m.key == members[0].data.tags["key"])).metrics["elbo"]
    )


def test_an_unreachable_server_is_told_and_stops_nothing(monkeypatch, sweep, storage):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    t = Tracker("http://127.0.0.1:9", Plan(sweep, ONLY), storage, DATA)
    t.start(MEMBERS, {})
    t.ended(MEMBERS, {member.key: row(member) for member in MEMBERS})
    t.close("FINISHED")
    assert t.problem is not None
    assert "\n" not in t.problem


def steps(tracker, t):
    return [[m.step for m in tracker.client.get_metric_history(run, "elbo")] for run in t.run_ids.values()]


def metrics(epochs):
    return {"elbo": list(map(float, range(epochs))), "kl": [1.0] * epochs}


@pytest.mark.parametrize("call", ["create_run", "log_batch", "set_terminated"])
def test_where_answers_are_lost_nothing_is_missing_or_doubled_in_the_end(tracker, monkeypatch, call):
    monkeypatch.setattr(tracking, "RETRY_AFTER_S", 0.0)
    working, calls = getattr(MlflowClient, call), []

    def failing(self, *arguments, **options):
        answer = working(self, *arguments, **options)
        calls.append(call)
        if len(calls) in (2, 3):
            raise ConnectionError("the answer is lost")
        return answer

    monkeypatch.setattr(MlflowClient, call, failing)
    t = tracker()
    t.start(MEMBERS, {})
    for epoch in range(6):
        t.progressed(MEMBERS, epoch, {name: np.full((1, 3), values[epoch]) for name, values in metrics(7).items()})
    for member in MEMBERS:
        t.ended([member], {member.key: row(member, epochs=7, history=metrics(7))})
    t.close("FINISHED")
    assert len(calls) > 3
    assert t.problem is None
    assert steps(tracker, t) == [list(range(1, 8))] * 3
    assert len(tracker.runs()) == 7
    assert statuses(tracker) == {"FINISHED"}


def test_after_a_pause_a_server_that_was_away_gets_everything(tracker, sweep, monkeypatch):
    monkeypatch.setattr(tracking, "RETRY_AFTER_S", 3600.0)
    t = tracker()
    with monkeypatch.context() as away:
        away.setattr(MlflowClient, "get_experiment_by_name", lambda *_, **__: 1 / 0)
        t.start(MEMBERS, {})
        settle(t)
    assert t.problem == "ZeroDivisionError: division by zero"
    t.ended(MEMBERS, {member.key: row(member) for member in MEMBERS})
    settle(t)
    assert tracker.client.get_experiment_by_name(sweep.name) is None  # the pause is not over
    t.close("FINISHED")
    assert t.problem is None
    assert statuses(tracker) == {"FINISHED"}
    assert steps(tracker, t) == [[1, 2]] * 3


def test_a_long_history_is_cut_between_epochs(tracker, monkeypatch):
    """A driver that is killed between two calls leaves complete epochs, and the next driver continues after them."""
    monkeypatch.setattr(mlflow_runs, "_METRICS_PER_CALL", 5)
    sizes = []
    working = MlflowClient.log_batch
    monkeypatch.setattr(
        MlflowClient,
        "log_batch",
        lambda self, run_id, metrics=(), **rest: (
            sizes.append(len(metrics)),
            working(self, run_id, metrics=metrics, **rest),
        ),
    )
    t = tracker()
    t.start(MEMBERS[:1], {MEMBERS[0].key: row(MEMBERS[0], history=metrics(7))})
    t.close("FINISHED")
    assert [size for size in sizes if size] == [4, 4, 4, 2]  # other calls set the tags of study and sweep
    (run,) = t.run_ids.values()
    for name in ("elbo", "kl"):
        assert [m.step for m in tracker.client.get_metric_history(run, name)] == list(range(1, 8))


def test_following_many_reports_takes_few_calls_and_loses_no_epoch(tracker, monkeypatch):
    """Cohorts report every second; a call for each report and member would need a whole core."""
    calls, working = [], MlflowClient.log_batch
    monkeypatch.setattr(MlflowClient, "log_batch", lambda self, *a, **k: (calls.append(a), working(self, *a, **k)))
    t = tracker()
    t.start(MEMBERS, {})
    for epoch in range(60):
        t.progressed(MEMBERS, epoch, history(MEMBERS, 1))
    t.close("KILLED")
    assert t.problem is None
    assert steps(tracker, t) == [list(range(1, 61))] * 3
    assert len(calls) < 60


def test_a_cohort_that_begins_again_reports_some_epochs_twice(tracker):
    t = tracker()
    t.start(MEMBERS, {})
    for since, epochs in ((0, 1), (1, 2), (2, 3), (5, 1)):
        t.progressed(MEMBERS, since, history(MEMBERS, epochs))
    t.close("KILLED")
    assert t.problem is None
    assert steps(tracker, t) == [[1, 2, 3, 4, 5, 6]] * 3


MEMBER = ["create_run", "log_inputs", "log_batch", "set_terminated"]


def test_a_members_run_takes_four_calls_and_a_configurations_three(tracker, monkeypatch):
    """Each call takes milliseconds and a write to the database's disk."""
    calls = []
    for name in ("create_run", "log_batch", "log_inputs", "set_terminated", "update_run", "set_tag", "log_param"):
        working = getattr(MlflowClient, name)

        def spy(self, *arguments, working=working, name=name, **options):
            calls.append(name)
            return working(self, *arguments, **options)

        monkeypatch.setattr(MlflowClient, name, spy)
    t = tracker()
    t.start([], {})
    settle(t)
    calls.clear()
    failed = row(MEMBERS[0], status="failed", reason="diverged", history=metrics(7))
    t.ended(MEMBERS[:1], {MEMBERS[0].key: failed})
    settle(t)
    assert calls == ["create_run", *MEMBER]  # the first is the configuration's
    calls.clear()
    t.ended(MEMBERS[1:2], {MEMBERS[1].key: row(MEMBERS[1], history=metrics(7))})
    settle(t)
    assert calls == [*MEMBER, "log_batch", "set_terminated"]
    t.close("FINISHED")
    run, _ = sorted(by_kind(tracker.runs())["member"], key=lambda run: run.data.tags["seed"])
    assert run.data.tags["reason"] == "diverged"
    assert run.data.params.keys() == MEMBERS[0].config.flat().keys()
    assert steps(tracker, t) == [list(range(1, 8))] * 2


def test_parameters_tags_and_whole_epochs_fit_into_a_call(tracker, monkeypatch):
    """MLflow accepts 1,000 items in a call, and splits larger calls after every 1,000."""
    taken = []
    store = SqlAlchemyStore.log_batch

    def spy(self, run_id, metrics, params, tags):
        taken.append(sorted({metric.step for metric in metrics}))
        return store(self, run_id, metrics, params, tags)

    monkeypatch.setattr(SqlAlchemyStore, "log_batch", spy)
    t = tracker()
    history = {f"metric_{index}": list(map(float, range(200))) for index in range(9)}
    failed = row(MEMBERS[0], status="failed", reason="diverged", epochs=200, history=history)
    t.start(MEMBERS[:1], {MEMBERS[0].key: failed})
    t.close("FINISHED")
    assert t.problem is None
    assert [step for steps in taken for step in steps] == list(range(1, 201)), "no epoch is in two calls"


def test_runs_are_found_alike_in_the_database_and_by_the_client(tracker, database, sweep):
    t = tracker()
    rows = {member.key: row(member) for member in MEMBERS}
    rows[MEMBERS[1].key] = row(MEMBERS[1], status="failed", reason="diverged")
    t.start(MEMBERS[:2], rows)
    t.progressed(MEMBERS[2:], 0, history(MEMBERS[2:], 1))
    stop(t)
    experiment = tracker.client.get_experiment_by_name(sweep.name).experiment_id
    tracker.client.delete_run(t.run_ids["grid", MEMBERS[0].key])
    tracker.client.create_run(experiment)  # somebody else's
    found = known_runs(tracker.client, database, experiment)
    assert found == known_runs(tracker.client, "http://127.0.0.1:9", experiment)
    assert {(run.tags["kind"], run.status, run.tags.get("reason")) for run in found} == {
        ("sweep", "RUNNING", None),
        ("study grid", "RUNNING", None),
        ("configuration", "FINISHED", None),
        ("configuration", "RUNNING", None),
        ("member", "FAILED", "diverged"),
        ("member", "RUNNING", None),
    }


def test_a_failed_member_that_is_trained_again_loses_its_reason(tracker):
    member = MEMBERS[0]
    for status, reason in (("failed", "lost"), ("failed", "error"), ("finished", None)):
        t = tracker()
        t.start([member], {})
        t.progressed([member], 0, history([member], 1))
        t.ended([member], {member.key: row(member, status=status, reason=reason)})
        t.close("FINISHED")
        (run,) = by_kind(tracker.runs())["member"]
        assert (run.info.status, run.data.tags.get("reason")) == (status.upper(), reason)


def test_runs_and_experiments_that_were_deleted_by_hand_come_back(tracker, monkeypatch):
    monkeypatch.setattr(tracking, "RETRY_AFTER_S", 0.0)
    t = tracker()
    t.start(MEMBERS, {})
    t.progressed(MEMBERS, 0, history(MEMBERS, 1))
    settle(t)
    tracker.client.delete_run(t.run_ids["grid", MEMBERS[0].key])
    t.progressed(MEMBERS, 1, history(MEMBERS, 1))
    t.ended(MEMBERS, {member.key: row(member) for member in MEMBERS})
    t.close("FINISHED")
    assert t.problem is None
    assert len(tracker.runs()) == 7
    tracker.client.delete_experiment(tracker.runs()[0].info.experiment_id)
    t = tracker()
    t.start(MEMBERS, {member.key: row(member) for member in MEMBERS})
    t.close("FINISHED")
    assert t.problem is None
    assert statuses(tracker) == {"FINISHED"}


def test_epochs_that_were_not_reported_are_filled_in_when_their_member_ends(tracker):
    t = tracker()
    t.start(MEMBERS, {})
    t.progressed(MEMBERS, 0, history(MEMBERS, 1))
    t.progressed(MEMBERS, 3, history(MEMBERS, 2))
    settle(t)
    assert steps(tracker, t) == [[1]] * 3
    rows = {member.key: row(member, epochs=5, history=metrics(5)) for member in MEMBERS}
    t.ended(MEMBERS, rows)
    t.close("FINISHED")
    assert steps(tracker, t) == [[1, 2, 3, 4, 5]] * 3


def test_runs_tell_their_data_set_the_commit_and_the_versions(tracker, storage, monkeypatch):
    environments = iter([{"version.torch": "1", "mlflow.source.git.commit": "aaa"}, {"version.torch": "2"}])
    monkeypatch.setattr(sessions, "environment", lambda: next(environments))
    sessions.record(storage, ONLY)
    rows = {member.key: row(member) for member in MEMBERS[:2]}  # these end before the second session begins
    sessions.record(storage, ONLY)
    rows |= {MEMBERS[2].key: row(MEMBERS[2])}
    t = tracker()
    t.start(MEMBERS, rows)
    t.close("FINISHED")
    assert t.problem is None
    kinds = by_kind(tracker.runs())
    assert kinds["sweep"][0].data.tags["version.torch"] == "2"
    commits = {run.data.tags["key"]: run.data.tags.get("mlflow.source.git.commit") for run in kinds["member"]}
    assert commits == {MEMBERS[0].key: "aaa", MEMBERS[1].key: "aaa", MEMBERS[2].key: None}
    for run in kinds["member"]:
        datasets = {i.tags[0].value: i.dataset for i in run.inputs.dataset_inputs}
        assert {context: data.name for context, data in datasets.items()} == {
            "training": "digits",
            "validation": "digits",
        }
        assert datasets["training"].digest != datasets["validation"].digest
        assert "[360, 1, 8, 8]" in datasets["validation"].profile


def test_runs_last_as_long_as_their_rows_say(tracker):
    ended = row(MEMBERS[0], wall_s=12.5)
    t = tracker()
    t.start(MEMBERS[:1], {MEMBERS[0].key: ended})
    t.close("FINISHED")
    (run,) = by_kind(tracker.runs())["member"]
    assert run.info.end_time == round(ended.ended.timestamp() * 1000)
    assert run.info.end_time - run.info.start_time == 12_500


def test_images_that_only_the_workers_have_leave_the_inputs_empty(tracker, database, sweep, storage, tmp_path):
    plan = Plan(sweep, Overrides("grid", values=(("data.name", "mnist"),)))
    members = plan.members["grid"][:1]
    t = Tracker(database, plan, storage, tmp_path)
    t.start(members, {member.key: row(member) for member in members})
    t.close("FINISHED")
    assert t.problem is None
    (run,) = by_kind(tracker.runs())["member"]
    assert run.inputs.dataset_inputs == []
    assert run.data.params["data.name"] == "mnist"


def test_while_members_train_the_machine_is_watched_on_the_sweeps_run(tracker, monkeypatch):
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.05")
    for known in (0, 1):
        t = tracker()
        t.start(MEMBERS, {})
        t.started(MEMBERS)
        settle(t)
        deadline = time.monotonic() + 30
        while len(watched(tracker)) <= known:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        t.close("FINISHED")
        assert t.problem is None
        assert "SystemMetricsMonitor" not in {thread.name for thread in threading.enumerate()}
        assert watched(tracker) == sorted(set(watched(tracker)))  # a second session goes on counting


def watched(tracker):
    (run,) = by_kind(tracker.runs())["sweep"]
    found = tracker.client.get_metric_history(run.info.run_id, "system/cpu_utilization_percentage")
    return [metric.step for metric in found]


def test_a_database_is_made_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "runs" / "mlflow.db"

    def killed(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(sqlite.Path, "hardlink_to", killed)
        with pytest.raises(KeyboardInterrupt):
            sqlite.create_database(of_database(path))
    assert list(path.parent.iterdir()) == []
    sqlite.create_database(of_database(path))
    assert list(path.parent.iterdir()) == [path]
    made = path.read_bytes()
    sqlite.create_database(of_database(path))
    assert path.read_bytes() == made, "one that is there stays as it is"
    assert [e.name for e in MlflowClient(of_database(path)).search_experiments()] == ["Default"]


def test_of_two_that_make_the_database_at_once_one_counts(tmp_path, monkeypatch):
    path = tmp_path / "mlflow.db"
    link = sqlite.Path.hardlink_to

    def late(self, target):
        path.write_bytes(b"the other's")
        link(self, target)

    monkeypatch.setattr(sqlite.Path, "hardlink_to", late)
    sqlite.create_database(of_database(path))
    assert path.read_bytes() == b"the other's"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["quickstart", "paper_grid", "beyond"])
def test_names_of_runs_differ_where_a_list_cuts_them(name):
    for study, members in Plan(get_sweep(name)).members.items():
        names = [run_name(member.labels, member.config.seed) for member in members]
        assert len(set(names)) == len(names), study
        beginnings = {each[:32] for each in names}
        assert len(beginnings) >= 0.8 * len(names), f"{study}: {names[0]}"


def test_a_name_begins_with_the_values_and_the_seed():
    assert run_name({"a.temperature_forward": 0.3, "b.tau": 1.5}, 0) == "0.3 1.5 s0 (temperature_forward, tau)"
    assert run_name({"estimator": "ReinMax", "optim.lr": 0.001}, 1) == "0.001 s1 ReinMax (lr)"
    assert run_name({}, 2) == "s2"
    assert run_name({"guide.freeze_epoch": None, "batch_size": 64}, 0) == "none 64 s0 (freeze_epoch, batch_size)"


def test_links_lead_to_the_members_of_a_study_and_of_no_other(tracker, database):
    t = tracker()
    t.start(MEMBERS, {member.key: row(member) for member in MEMBERS})
    t.close("FINISHED")
    address, _, query = t.links()["grid"].partition("?")
    experiment = address.rpartition("/experiments/")[2].removesuffix("/runs")
    options = dict(parse_qsl(query))
    study = Plan(SMALL, ONLY).studies[0]
    assert address.startswith("http://127.0.0.1:5000/#/experiments/")
    assert options["orderByAsc"] == {"min": "true", "max": "false"}[study.mode]
    order = f"{options['orderByKey']} {'ASC' if options['orderByAsc'] == 'true' else 'DESC'}"
    found = tracker.client.search_runs([experiment], options["searchFilter"], order_by=[order])
    assert {run.data.tags["key"] for run in found} == {member.key for member in MEMBERS}
    values = [run.data.metrics[study.metric] for run in found]
    assert values == sorted(values, reverse=study.mode == "max")


def test_links_lead_to_the_server_that_was_given():
    (link,) = links.member_links("http://me:planted@server:80/x/", "7", Plan(SMALL, ONLY).studies).values()
    assert link.startswith("http://server:80/x/#/experiments/7/runs?searchFilter=tags.kind%20%3D%20%22member%22")


def test_the_sweeps_and_the_studys_run_say_what_is_best_and_the_command(tracker, storage):
    sessions.record(storage, ONLY, called_here(("small", "--only", "grid")))
    rows = {member.key: row(member) for member in MEMBERS}
    t = tracker()
    t.start(MEMBERS, rows)
    t.close("KILLED")  # the study is not complete
    assert t.problem is None
    kinds = by_kind(tracker.runs())
    (sweep,), (study,) = kinds["sweep"], kinds["study"]
    defined = Plan(SMALL, ONLY).studies[0]
    values: dict[str, list[float]] = {}
    for run in kinds["member"]:
        member = next(each for each in MEMBERS if each.key == run.data.tags["key"])
        values.setdefault(json.dumps(dict(member.labels)), []).append(run.data.metrics[defined.metric])
    means = {labels: float(np.mean(each)) for labels, each in values.items()}
    chosen = (min if defined.mode == "min" else max)(means, key=lambda labels: means[labels])
    assert json.loads(study.data.tags["best.parameters"]) == json.loads(chosen)
    assert float(study.data.tags[f"best.{defined.metric}"]) == pytest.approx(means[chosen])
    assert sweep.data.tags["best.grid"] == study.data.tags["best"]
    for run in (sweep, study):
        assert run.data.tags["command"].startswith("python -m sweeps.run small --only grid")


def test_the_filters_that_the_docs_print_find_what_they_name(database, storage):
    """In a store with the members of quickstart, and by another way than MLflow's filter."""
    lines = [line.strip() for line in Path("docs/mlflow.md").read_text().splitlines() if line.startswith("    ")]
    filters = [line for line in lines if line.startswith(("params.", "tags."))]
    assert len(filters) >= 3
    plan = Plan(get_sweep("quickstart"), Overrides(seeds=2))
    members = [member for members in plan.members.values() for member in members]
    rows = {member.key: row(member, metrics={"elbo": -30.0 + index / 4}) for index, member in enumerate(members)}
    t = Tracker(database, plan, Storage(storage.uri, "quickstart"), DATA)
    t.start(members, rows)
    t.close("FINISHED")
    assert t.problem is None
    client = MlflowClient(database)
    experiment = client.get_experiment_by_name("quickstart")
    assert experiment is not None
    found = {
        condition: {
            run.data.tags.get("key") or json.dumps([run.data.tags["study"], run.data.tags["configuration"]])
            for run in client.search_runs([experiment.experiment_id], condition)
        }
        for condition in filters
    }
    silent = {
        member.key
        for member in members
        if (member.config.estimator.name, member.config.latent.family) == ("silent", "bernoulli")
    }
    good = {m.key for m in members if m.study == "temperatures" and rows[m.key].metrics["elbo"] > -26}
    assert silent
    assert good
    assert (
        found['tags.kind = "member" and params.`estimator.name` = "silent" and params.`latent.family` = "bernoulli"']
        == silent
    )
    assert found['tags.kind = "member" and tags.study = "temperatures" and metrics.elbo > -26'] == good
    pairs = {json.dumps(["temperatures", run_name(m.labels)]) for m in members if m.study == "temperatures"}
    assert len(pairs) == 16
    assert found['tags.kind = "configuration" and tags.study = "temperatures" and metrics.elbo > -26'] == pairs
    assert all(found.values())
