"""MLflow's tables that we use: if a new version of MLflow moves one, a test names what breaks."""

import contextlib
import sqlite3

import pytest
from mlflow import MlflowClient
from mlflow.entities import LoggedModelStatus
from scripted import SMALL

from sweeps.records.storage import Storage
from sweeps.tracking import sqlite
from sweeps.tracking.known import known_runs
from sweeps.tracking.links import links_of_storage
from sweeps.tracking.uri import ARTIFACTS, artifacts, of_database


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A database with a run, a logged model and a registered version, made through MLflow's client only."""
    path = tmp_path_factory.mktemp("tables") / "mlflow.db"
    client = MlflowClient(of_database(path))
    experiment = client.create_experiment("x", artifacts(of_database(path)))
    run = client.create_run(experiment, tags={"kind": "member", "key": "k", "other": "o"}).info.run_id
    model = client.create_logged_model(experiment, "m", run)
    client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
    client.create_registered_model("m")
    client.create_model_version("m", model.artifact_location, run, model_id=model.model_id)
    return path


@pytest.fixture
def copy(made, tmp_path):
    path = tmp_path / "moved" / "mlflow.db"
    path.parent.mkdir()
    with contextlib.closing(sqlite3.connect(made)) as old, contextlib.closing(sqlite3.connect(path)) as new:
        old.backup(new)
    return path


@pytest.mark.parametrize(("table", "column"), sqlite.LOCATIONS)
def test_the_columns_of_locations_without_which_a_moved_storage_loses_its_artifacts(made, table, column):
    with contextlib.closing(sqlite3.connect(made)) as connection:
        places = [place for (place,) in connection.execute(f"SELECT {column} FROM {table}") if place]
    assert any(f"/{ARTIFACTS}" in place for place in places), f"MLflow keeps no location in {table}.{column} any more"


def test_no_other_column_has_locations_or_else_a_moved_storage_keeps_some_that_are_wrong(made):
    with contextlib.closing(sqlite3.connect(made)) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        having = {
            (table, name)
            for table in tables
            for _, name, *_ in connection.execute(f"PRAGMA table_info({table})")
            for (value,) in connection.execute(f'SELECT "{name}" FROM "{table}"')
            if isinstance(value, str) and f"/{ARTIFACTS}" in value
        }
    assert having == set(sqlite.LOCATIONS)


def test_moving_without_which_the_models_of_a_moved_storage_cannot_be_loaded(copy):
    uri = of_database(copy)
    sqlite.relocate(uri)
    client, here = MlflowClient(uri), artifacts(uri)
    experiment = client.get_experiment_by_name("x")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    (model,) = client.search_logged_models([experiment.experiment_id])
    (version,) = client.search_model_versions("name = 'm'")
    places = [experiment.artifact_location, run.info.artifact_uri, model.artifact_location, version.source]
    assert [str(place).startswith(str(here)) for place in places] == [True] * 4


def test_the_tables_of_runs_and_tags_without_which_a_second_run_makes_every_run_again(made):
    client = MlflowClient(of_database(made))
    experiment = client.get_experiment_by_name("x").experiment_id
    found = known_runs(client, of_database(made), experiment)
    assert found == known_runs(client, "http://127.0.0.1:9", experiment)
    assert [(run.status, run.tags) for run in found] == [("RUNNING", {"kind": "member", "key": "k"})]


def test_the_count_of_runs_without_which_doctor_calls_a_good_database_damaged(made):
    assert sqlite.count_runs(made) == 1


def test_the_id_of_an_experiment_without_which_reports_have_no_links(made):
    experiment = MlflowClient(of_database(made)).get_experiment_by_name("x")
    assert experiment is not None
    assert sqlite.experiment_id(made, "x") == experiment.experiment_id
    assert sqlite.experiment_id(made, "y") is None
    (link,) = links_of_storage(Storage(str(made.parent), "x"), SMALL.studies[:1]).values()
    assert f"/#/experiments/{experiment.experiment_id}/runs?" in link
    assert links_of_storage(Storage(str(made.parent), "y"), SMALL.studies) == {}
    assert links_of_storage(Storage(str(made.parent / "elsewhere"), "x"), SMALL.studies) == {}
    (made.parent / "damaged").mkdir()
    (made.parent / "damaged" / "mlflow.db").write_text("no database" * 100)
    assert links_of_storage(Storage(str(made.parent / "damaged"), "x"), SMALL.studies) == {}


def test_a_new_database_without_which_no_run_has_tracking(tmp_path):
    uri = of_database(tmp_path / "mlflow.db")
    sqlite.create_database(uri)
    assert sqlite.count_runs(tmp_path / "mlflow.db") == 0
    MlflowClient(uri).create_experiment("usable")
