"""Where MLflow's runs go: the database beside the sweeps of a folder, or a server."""

import re
from pathlib import Path
from urllib.parse import unquote

from sweeps.errors import UserError

_SQLITE = "sqlite:///"
_KNOWN = re.compile(
    r"https?://[^/\s]+\S*|(sqlite|mysql|postgresql|mssql)(\+\w+)?://\S.*|databricks(-uc)?(://\S+)?|uc:\S+"
)


def of_database(path: Path) -> str:
    """The URI of an SQLite database; its path may have any characters."""
    # Nothing is quoted without need: MLflow also makes the folder that the URI would name unquoted.
    return _SQLITE + str(path.absolute()).replace("%", "%25").replace("?", "%3F")


def database(uri: str) -> Path | None:
    """The file of an SQLite database; None for what is not one."""
    return Path(unquote(uri.removeprefix(_SQLITE).partition("?")[0])) if uri.startswith(_SQLITE) else None


def check_tracking_uri(uri: str) -> None:
    """Raises UserError for a URI with which MLflow would not know what to do."""
    if not _KNOWN.fullmatch(uri):
        raise UserError(f"--tracking-uri is like http://127.0.0.1:5000 or sqlite:///mlflow.db, got {uri!r}")
