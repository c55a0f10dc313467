import numpy as np
import pytest
from mlflow import MlflowClient
from scripted import SMALL, result, row

from sweeps.plan import Overrides, Plan
from sweeps.tracking import Tracker

PLAN = Plan(SMALL, Overrides(only="grid"))
MEMBERS = PLAN.members["grid"][:3]


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """One database for the module: making its tables takes seconds. Every test has an experiment of its own."""
    folder = tmp_path_factory.mktemp("mlflow")
    return f"sqlite:///{folder / 'mlflow.db'}", (folder / "artifacts").as_uri()


@pytest.fixture
def tracker(database, request):
    import dataclasses

    sweep = dataclasses.replace(SMALL, name=request.node.name[:60].replace("[", "_").replace("]", ""))

    def make() -> Tracker:
        return Tracker(*database, sweep)

    make.client = MlflowClient(database[0])
    make.runs = lambda: make.client.search_runs(
        [make.client.get_experiment_by_name(sweep.name).experiment_id], max_results=1000
    )
    return make


def by_kind(runs):
    kinds: dict[str, list] = {}
    for run in runs:
        kinds.setdefault(run.data.tags["kind"].split()[0], []).append(run)
    return kinds


def history(members, epochs):
    return {"elbo": np.arange(float(epochs * len(members))).reshape(epochs, len(members))}


def test_runs_are_nested_tagged_and_complete(tracker):
    t = tracker()
    rows = {member.key: row(member) for member in MEMBERS}
    rows[MEMBERS[2].key] = row(MEMBERS[2], status="failed", reason="diverged", metrics={})
    t.start(PLAN.studies, MEMBERS, {})
    t.progressed(MEMBERS, 0, history(MEMBERS, 1))
    t.ended(MEMBERS, rows)
    t.close("FINISHED")
    assert t.problem is None
    kinds = by_kind(tracker.runs())
    (sweep,), (study,), members = kinds["sweep"], kinds["study"], kinds["member"]
    assert study.data.tags["mlflow.parentRunId"] == sweep.info.run_id
    assert {m.data.tags["mlflow.parentRunId"] for m in members} == {study.info.run_id}
    assert {m.data.tags["key"] for m in members} == {m.key for m in MEMBERS}
    one = next(m for m in members if m.data.tags["key"] == MEMBERS[1].key)
    assert one.data.tags["sweep"] == sweep.data.tags["sweep"]
    assert (one.data.tags["study"], one.data.tags["seed"]) == ("grid", str(MEMBERS[1].config.seed))
    assert one.data.params["optim.lr"] == str(MEMBERS[1].config.optim.lr)
    assert [m.step for m in tracker.client.get_metric_history(one.info.run_id, "elbo")] == [1, 2]
    assert sorted(run.info.status for run in tracker.runs()) == ["FAILED"] + ["FINISHED"] * 4
    assert t.run_ids[("grid", MEMBERS[1].key)] == one.info.run_id


def test_an_interruption_leaves_no_run_running(tracker):
    t = tracker()
    t.start(PLAN.studies, MEMBERS, {})
    t.progressed(MEMBERS, 0, history(MEMBERS, 1))
    t.close("KILLED")
    assert {run.info.status for run in tracker.runs()} == {"KILLED"}
    assert len(tracker.runs()) == 5


def test_after_a_kill_runs_are_taken_up_and_no_step_is_logged_twice(tracker):
    killed = tracker()
    killed.start(PLAN.studies, MEMBERS, {})
    killed.progressed(MEMBERS, 0, history(MEMBERS, 1))
    killed._jobs.put(None)  # its process is gone: nothing was closed
    killed._thread.join()
    assert {run.info.status for run in tracker.runs()} == {"RUNNING"}

    t = tracker()
    t.start(PLAN.studies, MEMBERS, {})
    t.progressed(MEMBERS, 0, history(MEMBERS, 1))
    t.ended(MEMBERS, {member.key: row(member) for member in MEMBERS})
    t.close("FINISHED")
    assert t.problem is None
    assert len(tracker.runs()) == 5
    assert {run.info.status for run in tracker.runs()} == {"FINISHED"}
    for run_id in t.run_ids.values():
        assert [m.step for m in tracker.client.get_metric_history(run_id, "elbo")] == [1, 2]


def test_what_mlflow_misses_is_filled_in_from_the_ledger_once(tracker):
    rows = {member.key: row(member) for member in MEMBERS}
    for _ in range(2):
        t = tracker()
        t.start(PLAN.studies, MEMBERS, rows)
        t.close("FINISHED")
        assert t.problem is None
    members = by_kind(tracker.runs())["member"]
    assert len(members) == 3
    assert members[0].data.metrics["elbo"] == pytest.approx(
        result(next(m for m in MEMBERS if m.key == members[0].data.tags["key"]))["metrics"]["elbo"]
    )


def test_an_unreachable_server_is_told_and_stops_nothing(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    t = Tracker("http://127.0.0.1:9", None, SMALL)
    t.start(PLAN.studies, MEMBERS, {})
    t.ended(MEMBERS, {member.key: row(member) for member in MEMBERS})
    t.close("FINISHED")
    assert t.problem is not None
    assert "\n" not in t.problem
