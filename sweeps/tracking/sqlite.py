"""MLflow's own tables in an SQLite file. No other file of the program reads or changes them.

MLflow promises nothing about its tables, so a new version may move them: tests/sweeps/test_mlflow_tables.py says what
breaks then. They are used where MLflow's client has no call, or takes milliseconds a run. A server is never touched.
"""

import contextlib
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path

from sweeps.records.scratch import scratch_folder
from sweeps.tracking.uri import ARTIFACTS, artifacts, database, of_database

DatabaseError = sqlite3.Error
"""Raised if a file is not a database of MLflow's, is locked, or cannot be read."""

LOCATIONS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
"""Tables and columns with the absolute locations of artifacts."""
_TIMEOUT_S = 30
_TAGGED_RUNS = """
    SELECT run_uuid, status, tags.key, tags.value FROM runs JOIN tags USING (run_uuid)
    WHERE experiment_id = ? AND lifecycle_stage = 'active' AND tags.key IN ({})
    ORDER BY start_time DESC, run_uuid
"""


def count_runs(path: Path) -> int:
    """The number of runs in a database, which is opened for reading only.

    Raises:
        DatabaseError: it cannot be read.
    """
    with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        (count,) = connection.execute("SELECT COUNT(*) FROM runs").fetchone()
    return count


def experiment_id(path: Path, name: str) -> str | None:
    """The id of the experiment of a name; None if there is none. Raises as `count_runs`."""
    with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        found = connection.execute("SELECT experiment_id FROM experiments WHERE name = ?", (name,)).fetchone()
    return None if found is None else str(found[0])


def tagged_runs(path: Path, experiment: str, names: Sequence[str]) -> Iterator[tuple[str, str, Mapping[str, str]]]:
    """The id, status and tags of the runs of an experiment that have any of these tags; the latest first.

    Takes 0.01 ms a run, where MLflow's client takes 1 to 2 ms. Deleted runs are left out.

    Raises:
        DatabaseError: it cannot be read.
    """
    query = _TAGGED_RUNS.format(", ".join("?" * len(names)))
    with contextlib.closing(sqlite3.connect(path, timeout=_TIMEOUT_S)) as connection:
        rows = connection.execute(query, (int(experiment), *names))
        for (run_id, status), tags in groupby(rows, key=lambda row: row[:2]):
            yield run_id, status, {name: value for _, _, name, value in tags}


def relocate(uri: str) -> None:
    """Corrects the locations of artifacts in a database that was moved together with its artifacts.

    MLflow keeps absolute locations, and has no call to change them. Locations that an MLflow server resolves
    (`mlflow-artifacts:/`) would need no correction, but then no model could be loaded without a server.

    Raises:
        DatabaseError: the file is not a database of MLflow's, or is locked.
    """
    path, here = database(uri), artifacts(uri)
    if path is None or here is None or not path.is_file():
        return
    with contextlib.closing(sqlite3.connect(path, timeout=_TIMEOUT_S)) as connection, connection:
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'experiments'").fetchone():
            return  # new, and still empty
        known = connection.execute("SELECT DISTINCT artifact_location FROM experiments").fetchall()
        for (old,) in known:
            if old and old.startswith("file:") and old.endswith(f"/{ARTIFACTS}") and old != here:
                for table, column in LOCATIONS:
                    connection.execute(
                        f"UPDATE {table} SET {column} = :here || substr({column}, length(:old) + 1) "
                        f"WHERE {column} = :old OR substr({column}, 1, length(:old) + 1) = :old || '/'",
                        {"old": old, "here": here},
                    )


def create_database(uri: str) -> None:
    """Makes MLflow's SQLite database if there is none: whole, or not at all.

    MLflow makes its tables in some sixty steps. If it is killed between them, it can neither use nor finish the
    database. So the tables are made elsewhere, and the finished file gets its name in one step.
    """
    path = database(uri)
    if path is None or path.exists():
        return
    from mlflow import MlflowClient  # takes seconds to import, and the commands that only read need none

    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    with scratch_folder() as folder:
        MlflowClient(of_database(folder / path.name)).search_experiments(max_results=1)
        with (
            contextlib.closing(sqlite3.connect(folder / path.name)) as made,
            contextlib.closing(sqlite3.connect(partial)) as copy,
        ):
            made.backup(copy)
    try:
        with contextlib.suppress(FileExistsError):  # another sweep's driver was faster
            path.hardlink_to(partial)
    finally:
        partial.unlink()
