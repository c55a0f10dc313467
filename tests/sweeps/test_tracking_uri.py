import sqlite3

import pytest
from mlflow import MlflowClient

from sweeps.records.storage import Storage
from sweeps.tracking.uri import database, foreign, of_database, remove_stray_folder, tracking_uri_of, ui_command


@pytest.mark.parametrize("name", ["a b", "50%20", "q?m#n", "ü'"])
def test_a_database_lies_where_its_uri_says_whatever_the_folder_is_called(tmp_path, name, empty_database):
    path = tmp_path / name / "mlflow.db"
    empty_database(path)
    MlflowClient(of_database(path)).create_experiment("x")
    assert database(of_database(path)) == path
    with sqlite3.connect(path) as connection:
        assert ("x",) in connection.execute("select name from experiments").fetchall()


@pytest.mark.parametrize("name", ["50%20", "q?m", "plain"])
def test_the_empty_folder_that_mlflow_makes_is_removed_and_nothing_else(tmp_path, name, empty_database):
    path = tmp_path / name / "mlflow.db"
    empty_database(path)
    MlflowClient(of_database(path)).create_experiment("x")
    remove_stray_folder(of_database(path))
    assert [each.name for each in tmp_path.iterdir()] == [name]
    assert path.exists()
    remove_stray_folder("http://127.0.0.1:5000")


def test_a_server_is_no_database():
    assert database("http://127.0.0.1:5000") is None


@pytest.mark.parametrize(
    ("uri", "command"),
    [
        (None, "python -m sweeps.ui --storage 'my runs'"),
        ("sqlite:////elsewhere/ml.db", "mlflow ui --backend-store-uri sqlite:////elsewhere/ml.db"),
        ("http://127.0.0.1:5000", ""),
    ],
)
def test_the_command_that_opens_mlflow_opens_the_database_of_the_run(tmp_path, monkeypatch, uri, command):
    monkeypatch.chdir(tmp_path)
    storage = Storage("my runs", "quickstart")
    assert ui_command(storage, tracking_uri_of(storage, uri)) == command


def test_a_file_that_is_no_database_is_named(tmp_path, empty_database):
    path = tmp_path / "mlflow.db"
    assert foreign(of_database(path)) is None
    assert foreign(empty_database(path)) is None
    path.write_bytes(b"garbage")
    assert foreign(of_database(path)) == path
    assert foreign("http://127.0.0.1:5000") is None
