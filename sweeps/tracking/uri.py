"""Where MLflow's runs go: the database beside the sweeps of a folder, or a server."""

import contextlib
import re
import sqlite3
from pathlib import Path
from urllib.parse import unquote

from sweeps.errors import UserError
from sweeps.records.storage import Storage

_SQLITE = "sqlite:///"
_KNOWN = re.compile(
    r"https?://[^/\s]+\S*|(sqlite|mysql|postgresql|mssql)(\+\w+)?://\S.*|databricks(-uc)?(://\S+)?|uc:\S+"
)
DATABASE, ARTIFACTS = "mlflow.db", "mlartifacts"
_LOCATIONS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
"""Tables and columns in which MLflow keeps where artifacts lie."""


def of_database(path: Path) -> str:
    """The URI of an SQLite database; its path may have any characters."""
    # Nothing is quoted without need: MLflow also makes the folder that the URI would name unquoted.
    return _SQLITE + str(path.absolute()).replace("%", "%25").replace("?", "%3F")


def database(uri: str) -> Path | None:
    """The file of an SQLite database; None for what is not one."""
    return Path(unquote(uri.removeprefix(_SQLITE).partition("?")[0])) if uri.startswith(_SQLITE) else None


def artifacts(uri: str) -> str | None:
    """The URI of the folder for artifacts, beside a database; None for a server, which decides for itself."""
    path = database(uri)
    return None if path is None else (path.absolute().parent / ARTIFACTS).as_uri()


def relocate(uri: str) -> None:
    """Tells a database that was moved, together with the artifacts beside it, where those are now.

    MLflow keeps absolute locations, and has no call to change them. (Locations that an MLflow server resolves, as in
    `mlflow-artifacts:/`, would spare this, but then no model could be loaded without a server.)

    Raises:
        sqlite3.Error: the file is not a database of MLflow's, or is locked.
    """
    path, here = database(uri), artifacts(uri)
    if path is None or here is None or not path.is_file():
        return
    with contextlib.closing(sqlite3.connect(path, timeout=30)) as connection, connection:
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'experiments'").fetchone():
            return  # new, and still empty
        known = connection.execute("SELECT DISTINCT artifact_location FROM experiments").fetchall()
        for (old,) in known:
            if old and old.startswith("file:") and old.endswith(f"/{ARTIFACTS}") and old != here:
                for table, column in _LOCATIONS:
                    connection.execute(
                        f"UPDATE {table} SET {column} = :here || substr({column}, length(:old) + 1) "
                        f"WHERE {column} = :old OR substr({column}, 1, length(:old) + 1) = :old || '/'",
                        {"old": old, "here": here},
                    )


def tracking_uri_of(storage: Storage, given: str | None) -> str:
    """The URI that was given, or that of the database beside the sweeps of a folder.

    Raises:
        UserError: MLflow would not know what to do with it, or none is given and the storage is no folder.
    """
    if given is None:
        if not storage.local:
            raise UserError("--storage is not a folder, so name MLflow's server: --tracking-uri http://127.0.0.1:5000")
        return of_database(storage.local_path.parent / DATABASE)
    if not _KNOWN.fullmatch(given):
        raise UserError(f"--tracking-uri is like http://127.0.0.1:5000 or sqlite:///mlflow.db, got {given!r}")
    return given
