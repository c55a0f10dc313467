"""MLflow's database is deleted, and is rebuilt from the ledger."""

import dataclasses
import json
import shutil
import subprocess
import sys

import pytest
from mlflow import MlflowClient
from scripted import SMALL, result, row

from sweeps.driver.driver import Driver
from sweeps.errors import UserError
from sweeps.planning import saved, sessions
from sweeps.planning.plan import Overrides, Plan
from sweeps.records.ledger import Ledger
from sweeps.records.lock import Lock
from sweeps.records.tables import known_run_ids
from sweeps.report.write import write_outputs
from sweeps.tracking import rebuild
from sweeps.tracking.tracker import Tracker
from sweeps.tracking.uri import database, of_database

FEW = Overrides(only="grid")
OTHER = Overrides(only="grid", values=(("optim.beta1", 0.5),), seeds=1)


@pytest.fixture
def uri(empty_database, tmp_path):
    return empty_database(tmp_path / "runs" / "mlflow.db")


@pytest.fixture
def small(monkeypatch):
    """Registers the tests' sweep by its name."""
    monkeypatch.setattr(saved, "find_sweep", lambda name, studies=None: {"small": SMALL}[name])
    return SMALL


def run(storage, uri, sweep, overrides, drain, tmp_path):
    """Does the same as `sweeps.run`, without Ray; every second member of one shape fails."""
    plan = Plan(sweep, overrides)
    driver = Driver(plan, Ledger(storage), retry_failed=False)
    saved.save_plan(storage, overrides)
    sessions.record(storage, overrides)
    tracker = Tracker(uri, plan, storage, tmp_path)
    driver.listen(tracker)
    tracker.start(driver.members(), driver.settled())

    def outcome(driver, cohort):
        failed = {"status": "failed", "reason": "diverged", "metrics": {}}
        driver.ended(cohort, [result(m, **(failed if m.config.optim.lr == 1e-3 else {})) for m in cohort.members])

    drain(driver, outcome)
    tracker.close("FINISHED")
    assert tracker.problem is None
    write_outputs(storage, driver.unfoldings, driver.current(), tracker.run_ids)


def content(uri, name="small"):
    """MLflow's content for a sweep's runs, without ids and times of calls."""
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None
    runs = {run.info.run_id: run for run in client.search_runs([experiment.experiment_id], max_results=1000)}
    found = {}
    for run in runs.values():
        tags = dict(run.data.tags)
        parent = tags.pop("mlflow.parentRunId", None)
        name = (tags["kind"], tags.get("study"), tags.get("key", tags.get("configuration.key")))
        history = {
            metric: [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, metric)]
            for metric in run.data.metrics
        }
        above = runs[parent].data.tags["kind"] if parent else None
        found[name] = (run.info.status, run.info.run_name, above, tags, run.data.params, history)
    assert len(found) == len(runs)
    return found


def test_the_runs_of_all_sessions_come_back_with_parameters_metrics_and_tags(
    storage, uri, small, drain, empty_database, tmp_path
):
    run(storage, uri, small, OTHER, drain, tmp_path)
    run(storage, uri, small, FEW, drain, tmp_path)
    before = content(uri)
    assert len(before) == 1 + 1 + 4 + 8 + 4  # the sweep, the study, configurations, members with two seeds and with one
    assert {status for status, *_ in before.values()} == {"FINISHED", "FAILED"}
    # MLflow keeps a deleted file open within a process, so this one is left for another.
    again = empty_database(tmp_path / "again.db")
    assert rebuild.rebuild(storage, again, tmp_path) == 12
    assert content(again) == before
    known = known_run_ids(storage)
    assert len(known) == 8
    assert {MlflowClient(again).get_run(run_id).data.tags["key"] for run_id in known.values()} == {k for _, k in known}
    assert rebuild.rebuild(storage, again, tmp_path) == 12
    assert content(again) == before


@pytest.mark.slow
def test_after_its_database_was_deleted_the_command_restores_runs_and_models(tmp_path):
    only = ("--only", "search", "--set", "epochs=2", "--storage", str(tmp_path))
    python("sweeps.run", "quickstart", *only)
    uri = of_database(tmp_path / "mlflow.db")
    before, models = copied(uri, tmp_path / "before.db")
    assert len(before) == 14
    assert list(models) == ["quickstart.search"]
    (tmp_path / "mlflow.db").unlink()
    python("sweeps.status", "quickstart", "--storage", str(tmp_path), "--rebuild-tracking")
    assert copied(uri, tmp_path / "after.db") == (before, models)


def python(module, *arguments):
    done = subprocess.run([sys.executable, "-m", module, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def copied(uri, path):
    """The content and the registered models' tags of a copy; this process would keep the original database open."""
    shutil.copyfile(database(uri), path)
    models = MlflowClient(of_database(path)).search_registered_models()
    runs = content(of_database(path), "quickstart")
    return {
        name: (*rest, {metric: steps for metric, steps in history.items() if not metric.startswith("system/")})
        for name, (*rest, history) in runs.items()
    }, {model.name: model.latest_versions[0].tags for model in models}


def test_a_sweep_that_was_interrupted_is_told_so(storage, uri, small, tmp_path):
    plan = Plan(small, FEW)
    saved.save_plan(storage, FEW)
    Ledger(storage).append([row(member) for member in plan.members["grid"][:3]])
    assert rebuild.rebuild(storage, uri, tmp_path) == 3
    assert sorted(status for status, *_ in content(uri).values()) == ["FINISHED"] * 4 + ["KILLED"] * 3


def test_a_session_whose_plan_is_no_more_is_left_out(storage, uri, small, tmp_path, caplog):
    sessions.record(storage, dataclasses.replace(FEW, only="gone"))
    saved.save_plan(storage, FEW)
    Ledger(storage).append([row(member) for member in Plan(small, FEW).members["grid"][:3]])
    assert rebuild.rebuild(storage, uri, tmp_path) == 3
    assert "no study of 'small' matches --only 'gone'" in caplog.text


def test_while_a_driver_is_at_work_nothing_is_rebuilt(storage, small, tmp_path):
    uri = of_database(tmp_path / "runs" / "mlflow.db")
    saved.save_plan(storage, FEW)
    with Lock(storage), pytest.raises(UserError, match="is being run by"):
        rebuild.rebuild(storage, uri, tmp_path)
    assert not (tmp_path / "runs" / "mlflow.db").exists()


def test_a_server_that_cannot_be_reached_is_told(storage, small, tmp_path):
    saved.save_plan(storage, FEW)
    with pytest.raises(UserError, match=r"MLflow cannot be rebuilt: .*; run the same command again to continue"):
        rebuild.rebuild(storage, "http://127.0.0.1:9", tmp_path)


def test_the_command_rebuilds_and_then_tells_the_status(storage, uri, small, tmp_path, command):
    from sweeps.status import status

    saved.save_plan(storage, FEW)
    members = Plan(small, FEW).members["grid"]
    Ledger(storage).append([row(member) for member in members])
    code, out, err = command(status, "small", "--storage", str(tmp_path / "runs"), "--rebuild-tracking", "--json")
    assert (code, err) == (0, "MLflow has the runs of 8 members.\n")
    assert json.loads(out)["state"] == "complete"
    assert len(content(uri)) == 1 + 1 + 4 + 8
    assert "http://127.0.0.1:5000/#/experiments/" in storage.read("report/index.html").decode()
