"""The address of MLflow: a database beside the sweeps of a folder, or a server."""

import contextlib
import re
import shlex
from pathlib import Path
from urllib.parse import unquote

from sweeps.errors import UserError
from sweeps.records.storage import Storage

_SQLITE = "sqlite:///"
_KNOWN = re.compile(
    r"https?://[^/\s]+\S*|(sqlite|mysql|postgresql|mssql)(\+\w+)?://\S.*|databricks(-uc)?(://\S+)?|uc:\S+"
)
DATABASE, ARTIFACTS = "mlflow.db", "mlartifacts"


def of_database(path: Path) -> str:
    """The URI of an SQLite database; its path may have any characters."""
    # Only what must be quoted is: MLflow also makes a folder with the path as it stands in the URI.
    return _SQLITE + str(path.absolute()).replace("%", "%25").replace("?", "%3F")


def database(uri: str) -> Path | None:
    """The file of an SQLite database; None for any other URI."""
    return Path(unquote(uri.removeprefix(_SQLITE).partition("?")[0])) if uri.startswith(_SQLITE) else None


def remove_stray_folder(uri: str) -> None:
    """Removes an empty folder that MLflow makes: the database's, with the path as it is quoted in the URI."""
    path, stray = database(uri), Path(uri.removeprefix(_SQLITE).partition("?")[0]).parent
    if path is not None and stray != path.parent:
        with contextlib.suppress(OSError):  # it is not there, or not empty: then it is not MLflow's
            stray.rmdir()


def foreign(uri: str) -> Path | None:
    """The file of an SQLite URI that is no database, for example because it is damaged; None if there is none."""
    path = database(uri)
    if path is None or not path.is_file():
        return None
    with path.open("rb") as file:
        return path if file.read(16) not in (b"", b"SQLite format 3\0") else None


def artifacts(uri: str) -> str | None:
    """The URI of the folder for artifacts beside a database; None for a server, which has its own."""
    path = database(uri)
    return None if path is None else (path.absolute().parent / ARTIFACTS).as_uri()


def ui_command(storage: Storage, uri: str) -> str:
    """The command that opens MLflow's user interface for a database; empty for a server, which is running already."""
    if storage.local and uri == of_database(storage.local_path.parent / DATABASE):
        return f"python -m sweeps.ui --storage {shlex.quote(storage.uri)}"
    return "" if database(uri) is None else f"mlflow ui --backend-store-uri {shlex.quote(uri)}"


def tracking_uri_of(storage: Storage, given: str | None) -> str:
    """The given URI, or by default the URI of the database beside the sweeps of a folder.

    Raises:
        UserError: MLflow cannot use it, or none is given and the storage is not a folder.
    """
    if given is None:
        if not storage.local:
            raise UserError(
                "--storage is not a folder, so MLflow needs a server; give one, for example --tracking-uri http://127.0.0.1:5000"
            )
        return of_database(storage.local_path.parent / DATABASE)
    if not _KNOWN.fullmatch(given):
        raise UserError(f"--tracking-uri must be like http://127.0.0.1:5000 or sqlite:///mlflow.db, got {given!r}")
    return given
