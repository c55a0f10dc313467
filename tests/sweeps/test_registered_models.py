"""Registers the best model of a study, from real checkpoints of a small sweep, with real MLflow."""

import contextlib
import dataclasses
import io
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.entities import LoggedModelStatus
from rich.console import Console
from scripted import SMALL, row

from search_spaces.space import Sweep, Winner
from sweeps.driver.driver import Driver
from sweeps.driver.progress import Progress
from sweeps.planning.plan import Overrides, Plan
from sweeps.records.ledger import Ledger
from sweeps.records.storage import Storage
from sweeps.tracking import registry as models
from sweeps.tracking.sqlite import relocate
from sweeps.tracking.tracker import Tracker
from sweeps.tracking.uri import ARTIFACTS, of_database
from trainables.data import load
from trainables.reports import Outcome
from trainables.training import CohortTraining

DATA = Path("data")
PLAN = Plan(dataclasses.replace(SMALL, name="small"), Overrides(only="grid"))
STUDY = PLAN.studies[0]
MEMBERS = PLAN.members["grid"]
NAME = "small.grid"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A storage with the checkpoints of all members, and their rows."""
    storage = Storage(str(tmp_path_factory.mktemp("trained") / "runs"), "small")
    rows = {}
    for half, members in (("first", MEMBERS[::2]), ("second", MEMBERS[1::2])):
        training = CohortTraining([member.config for member in members], device="cpu", data_dir=DATA)
        for _ in training:
            pass
        storage.write(f"checkpoints/{half}/members.safetensors", training.checkpoint())
        for member, result in zip(members, training.results(), strict=True):
            rows[member.key] = row(member, metrics=result.metrics, history=result.history)
    return storage, rows


@pytest.fixture(scope="module")
def template(trained, empty_database):
    """That storage, with an empty database beside it."""
    folder = Path(trained[0].uri)
    empty_database(folder / "mlflow.db")
    return folder


@pytest.fixture
def place(template, tmp_path):
    """A copy of the template: the storage, and the URI of its database."""
    shutil.copytree(template, tmp_path / "runs")
    return Storage(str(tmp_path / "runs"), "small"), of_database(tmp_path / "runs" / "mlflow.db")


@pytest.fixture(scope="module")
def registered(template, trained, tmp_path_factory):
    """A folder with all models registered; do not write to it."""
    folder = tmp_path_factory.mktemp("registered") / "runs"
    shutil.copytree(template, folder)
    track(Storage(str(folder), "small"), of_database(folder / "mlflow.db"), trained[1])
    return folder


@pytest.fixture
def copy(registered, tmp_path):
    """A copy of this folder: its storage, and the URI of its database, which points to the original's artifacts."""
    shutil.copytree(registered, tmp_path / "moved")
    return Storage(str(tmp_path / "moved"), "small"), of_database(tmp_path / "moved" / "mlflow.db")


def track(storage, uri, rows):
    t = Tracker(uri, PLAN, storage, DATA)
    t.start(MEMBERS, rows)
    t.close("FINISHED")
    assert t.problem is None
    return t


def best_key(rows):
    return min(MEMBERS, key=lambda member: rows[member.key].metrics["bits_per_dim"]).key


def versions(uri):
    """(version, key) of all registered versions, and the version with the alias."""
    client = MlflowClient(uri)
    found = sorted((int(v.version), v.tags["key"]) for v in client.search_model_versions(f"name='{NAME}'"))
    return found, int(client.get_model_version_by_alias(NAME, "best").version)


def changed(rows, key, value):
    metrics = rows[key].metrics | {"bits_per_dim": value}
    return rows | {key: dataclasses.replace(rows[key], metrics=metrics)}


def in_a_fresh_process(folder, *lines):
    """Runs lines of Python in a fresh process in an empty folder; returns its output."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", "\n".join(lines)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


# --- the best member -------------------------------------------------------------------------------------------------


def scripted(values):
    """Members of the grid's first cells with metrics by cell and seed; None is a failed member."""
    ended = []
    for cell, seeds in enumerate(values):
        for seed, value in enumerate(seeds):
            member = MEMBERS[2 * cell + seed]
            assert member.config.seed == seed
            failed = {"status": "failed", "reason": "diverged", "metrics": {}}
            ended.append((member, row(member, **(failed if value is None else {"metrics": {"bits_per_dim": value}}))))
    return ended


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([(1.0, 9.0), (4.0, 3.0)], 3),  # a lucky seed is not the best configuration
        ([(4.0, 3.0), (1.0, 9.0)], 1),
        ([(2.0, None), (4.0, 3.0)], 3),
        ([(None, 2.0), (None, None)], 1),
        ([(float("nan"), float("nan")), (5.0, 6.0)], 2),
    ],
)
def test_the_best_seed_of_the_best_mean_is_chosen(values, expected):
    best = models.best_of("small", STUDY, scripted(values))
    assert best is not None
    assert best.member is MEMBERS[expected]


def test_where_higher_is_better_the_highest_is_chosen():
    higher = dataclasses.replace(STUDY, mode="max")
    best = models.best_of("small", higher, scripted([(1.0, 2.0), (4.0, 3.0)]))
    assert best is not None
    assert best.member is MEMBERS[2]


def test_of_failures_alone_none_is_best():
    assert models.best_of("small", STUDY, scripted([(None, None)])) is None


# --- registering -----------------------------------------------------------------------------------------------------


def test_three_lines_in_a_fresh_process_load_the_best_model(registered, trained, tmp_path):
    lines = [
        "import mlflow",
        f"mlflow.set_tracking_uri('sqlite:///{registered / 'mlflow.db'}')",
        f"model = mlflow.pyfunc.load_model('models:/{NAME}@best'); vae = model.unwrap_python_model().vae",
        "import sys, numpy as np, trainables",
        f"images = np.load({str(tmp_path / 'images.npy')!r})",
        "print(vae.config.key(), vae.encode(images).kl().mean().item(), vae.sample(3).shape[0])",
        "print(*model.predict(images).shape, *model.predict(images, params={'task': 'encode'}).shape)",
        "print(trainables.__file__, 'sweeps' in sys.modules, 'ray' in sys.modules)",
    ]
    images = load("digits", DATA).validation
    np.save(tmp_path / "images.npy", images)
    key, kl, sampled, *rest = in_a_fresh_process(tmp_path, *lines)
    assert key == best_key(trained[1])
    assert float(kl) == pytest.approx(trained[1][key].metrics["kl"], rel=1e-5)
    assert sampled == "3"
    assert rest[:6] == ["360", "1", "8", "8", "360", "4"]
    assert rest[6].startswith(str(registered))  # the code that was stored with it
    assert rest[7:] == ["False", "False"]


def test_a_version_says_where_it_comes_from(registered, trained):
    client = MlflowClient(of_database(registered / "mlflow.db"))
    version = client.get_model_version_by_alias(NAME, "best")
    key = best_key(trained[1])
    assert version.tags["key"] == key
    assert version.tags["study"] == "grid"
    assert f"{trained[1][key].metrics['bits_per_dim']:.4g}" in version.description
    (model,) = client.search_logged_models(["1"])
    assert model.status == LoggedModelStatus.READY
    assert model.params["optim.lr"] == str(next(m for m in MEMBERS if m.key == key).config.optim.lr)
    run = client.get_run(model.source_run_id)
    assert run.data.tags["key"] == key
    assert [output.model_id for output in run.outputs.model_outputs] == [model.model_id]
    assert [file.path for file in client.list_artifacts(run.info.run_id, "figures")] == ["figures/reconstructions.png"]
    folder = registered / ARTIFACTS / "models" / model.model_id / "artifacts"
    assert (folder / "input_example.json").is_file()
    assert "uint8" in (folder / "MLmodel").read_text()
    suffixes = {path.suffix for path in folder.rglob("*") if path.is_file()}
    assert suffixes == {"", ".json", ".py", ".safetensors", ".txt", ".yaml"}  # nothing pickled


def test_a_model_is_registered_once_and_again_when_another_is_best(copy, trained):
    storage, uri = copy
    rows = trained[1]
    first = best_key(rows)
    track(storage, uri, rows)
    assert versions(uri) == ([(1, first)], 1)
    sibling = next(m for m in MEMBERS if m.labels != next(o for o in MEMBERS if o.key == first).labels)
    better = changed(rows, sibling.key, -100.0)
    track(storage, uri, better)
    assert versions(uri) == ([(1, first), (2, sibling.key)], 2)
    track(storage, uri, rows)
    assert versions(uri) == ([(1, first), (2, sibling.key)], 1)


def test_an_incomplete_study_registers_nothing(place, trained):
    storage, uri = place
    rows = dict(list(trained[1].items())[1:])
    track(storage, uri, rows)
    assert MlflowClient(uri).search_registered_models() == []


def test_a_study_that_becomes_complete_registers_its_best_at_once(place, trained):
    storage, uri = place
    t = Tracker(uri, PLAN, storage, DATA)
    t.start(MEMBERS, {})
    t.ended(MEMBERS[:5], trained[1])
    t._jobs.join()
    assert MlflowClient(uri).search_registered_models() == []
    t.ended(MEMBERS[5:], trained[1])
    t._jobs.join()
    assert versions(uri) == ([(1, best_key(trained[1]))], 1)
    t.close("FINISHED")


def test_a_study_of_members_that_another_has_trained_is_registered_shown_as_done_and_has_its_runs(place, trained):
    storage, uri = place
    taking = dataclasses.replace(STUDY, name="taking", grid=STUDY.grid[1:], takes=(Winner("grid", ("optim.lr",)),))
    plan = Plan(Sweep("small", "Small", (STUDY, taking)))
    driver = Driver(plan, Ledger(storage), retry_failed=False)
    console = Console(file=io.StringIO(), width=200)
    progress, tracker = Progress(console, plan), Tracker(uri, plan, storage, DATA)
    driver.listen(progress, tracker)
    tracker.start(driver.members(), driver.settled())
    driver.begin(slots=1, pack=None)
    while (cohort := driver.next()) is not None:
        rows = [trained[1][member.key] for member in cohort.members]
        names = ("key", "status", "epochs", "wall_s")
        outcomes = [
            Outcome(**{name: getattr(r, name) for name in names}, metrics=dict(r.metrics), history=dict(r.history))
            for r in rows
        ]
        driver.ended(cohort, outcomes)
    progress.__exit__()
    tracker.close("FINISHED")
    assert tracker.problem is None
    assert console.file.getvalue().splitlines()[-1].startswith("8/8 done, 0 running, 0 failed")
    client = MlflowClient(uri)
    assert {model.name for model in client.search_registered_models()} == {"small.grid", "small.taking"}
    runs = client.search_runs(["1"], filter_string="tags.study = 'taking' and tags.kind = 'member'")
    assert {run.data.tags["key"] for run in runs} == {m.key for m in driver.members() if m.study == "taking"}
    assert len(runs) == 4


@pytest.mark.parametrize("damage", ["missing", "cut", "another epoch"])
def test_without_its_checkpoint_the_rest_is_tracked_all_the_same(place, trained, damage, caplog):
    storage, uri = place
    rows = trained[1]
    for path in storage.local_path.rglob("*.safetensors"):
        if damage == "missing":
            path.unlink()
        elif damage == "cut":
            path.write_bytes(path.read_bytes()[:-8])
        else:
            rows = {key: dataclasses.replace(row, epochs=1) for key, row in rows.items()}
    track(storage, uri, rows)
    assert "No model of study grid is registered" in caplog.text
    assert MlflowClient(uri).search_registered_models() == []


@pytest.mark.parametrize("call", ["log_model_artifacts", "create_model_version", "set_registered_model_alias"])
def test_where_registering_was_cut_short_the_next_run_completes_it(place, trained, call, monkeypatch):
    storage, uri = place
    with monkeypatch.context() as away:
        away.setattr(MlflowClient, call, lambda *_, **__: 1 / 0)
        t = Tracker(uri, PLAN, storage, DATA)
        t.start(MEMBERS, trained[1])
        t.close("FINISHED")
    assert t.problem == "ZeroDivisionError: division by zero"
    track(storage, uri, trained[1])
    assert versions(uri) == ([(1, best_key(trained[1]))], 1)
    assert [model.status for model in MlflowClient(uri).search_logged_models(["1"])] == [LoggedModelStatus.READY]


# --- moved storage ---------------------------------------------------------------------------------------------------


def locations(path):
    """All values in a database that look like local places of artifacts."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {
            value
            for table in tables
            for record in connection.execute(f"SELECT * FROM {table}")
            for value in record
            if isinstance(value, str) and f"/{ARTIFACTS}" in value
        }


def test_a_moved_database_knows_its_artifacts_where_they_are_now(copy, registered, tmp_path):
    _, uri = copy
    path = tmp_path / "moved" / "mlflow.db"
    before = locations(path)
    old, new = (folder.as_uri() for folder in (registered, tmp_path / "moved"))
    assert {place.startswith(f"{old}/{ARTIFACTS}") for place in before} == {True}
    relocate(uri)
    assert locations(path) == {place.replace(old, new) for place in before}
    relocate(uri)
    assert locations(path) == {place.replace(old, new) for place in before}


def test_what_lies_elsewhere_is_left_there(copy, tmp_path):
    _, uri = copy
    others = ["s3://bucket/mlartifacts", f"file:///other/{ARTIFACTS}/deeper", "mlflow-artifacts:/7"]
    for index, location in enumerate(others):
        MlflowClient(uri).create_experiment(f"other {index}", location)
    relocate(uri)
    kept = {e.artifact_location for e in MlflowClient(uri).search_experiments()}
    assert set(others) <= kept


def test_after_a_move_the_next_run_makes_the_models_loadable(copy, trained, tmp_path):
    relocate(copy[1])
    folder = (tmp_path / "moved").rename(tmp_path / "else where")  # the former place is empty
    track(Storage(str(folder), "small"), of_database(folder / "mlflow.db"), trained[1])
    version = MlflowClient(of_database(folder / "mlflow.db")).get_model_version_by_alias(NAME, "best")
    assert version.source.startswith((folder / ARTIFACTS).as_uri())
    lines = [
        "import mlflow",
        f"mlflow.set_tracking_uri({of_database(folder / 'mlflow.db')!r})",
        f"print(mlflow.pyfunc.load_model('models:/{NAME}@best').unwrap_python_model().vae.config.key())",
    ]
    assert in_a_fresh_process(tmp_path, *lines) == [best_key(trained[1])]


# --- a server --------------------------------------------------------------------------------------------------------


@pytest.fixture
def server(empty_database, tmp_path):
    """The address of an MLflow server that keeps artifacts itself."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", empty_database(tmp_path / "server.db")]
    command += ["--serve-artifacts", "--artifacts-destination", str(tmp_path / "kept")]
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            except OSError:
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.5)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(60)


@pytest.mark.slow
def test_a_server_has_the_runs_and_gives_the_models_back(place, trained, server, tmp_path):
    storage, _ = place
    t = track(storage, server, trained[1])
    storage.write("report/index.html", b"<h1>Report</h1>")
    storage.write("report/figures/one.png", b"png")
    t.publish_report()
    assert t.problem is None
    assert versions(server) == ([(1, best_key(trained[1]))], 1)
    track(storage, server, trained[1])
    assert versions(server) == ([(1, best_key(trained[1]))], 1)
    client = MlflowClient(server)
    (sweep,) = client.search_runs(["1"], 'tags.kind = "sweep"')
    (figure,) = client.list_artifacts(sweep.info.run_id, "report/figures")
    assert figure.path == "report/figures/one.png"
    lines = [
        "import mlflow",
        f"mlflow.set_tracking_uri({server!r})",
        f"print(mlflow.pyfunc.load_model('models:/{NAME}@best').unwrap_python_model().vae.config.key())",
    ]
    assert in_a_fresh_process(tmp_path, *lines)[-1:] == [best_key(trained[1])]
