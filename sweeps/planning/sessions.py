"""The sessions of a sweep: what each run of it was asked for, and with which program and versions it ran.

A file each. The ledger says what a training was and when it ended, so that its session, found by that time, says with
which commit it was trained, also when MLflow is rebuilt much later.
"""

import dataclasses
import getpass
import platform
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from sweeps.planning.command import Command, of_plan
from sweeps.planning.plan import Overrides, Plan
from sweeps.records.storage import Storage

_FOLDER = "sessions"
_PACKAGES = ("torch", "ray", "optuna", "mlflow", "numpy")


@dataclass(frozen=True)
class Session:
    """One run of a sweep."""

    started: datetime
    overrides: Overrides
    environment: dict[str, str] = field(default_factory=dict)
    command: Command | None = None
    """How it was called; None if an earlier version of the program recorded it."""


_JSON = TypeAdapter(Session)


@cache
def environment() -> dict[str, str]:
    """What runs here: commit, user, platform and versions, under the names of tags in MLflow."""
    found = {"python": platform.python_version(), "platform": platform.platform(), "mlflow.user": _user()}
    found |= {f"version.{package}": version(package) for package in _PACKAGES}
    commit = _git("rev-parse", "HEAD")
    if commit:
        found["mlflow.source.git.commit"] = commit
        found["git.dirty"] = str(bool(_git("status", "--porcelain", "--untracked-files=no"))).lower()
    return found


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # no such account, as in some containers
        return "unknown"


def _git(*arguments: str) -> str:
    """What git says of the program's checkout; nothing where there is none."""
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def record(storage: Storage, overrides: Overrides, command: Command | None = None) -> None:
    """Records a session that begins, unless it is like the one before."""
    session = Session(datetime.now(UTC), overrides, environment(), command)
    before = read(storage)[-1:]
    if not before or dataclasses.replace(session, started=before[0].started) != before[0]:
        storage.write(f"{_FOLDER}/{session.started:%Y%m%dT%H%M%S%f}.json", _JSON.dump_json(session))


def read(storage: Storage) -> list[Session]:
    """All sessions that can be read, the earliest first."""
    sessions = []
    for path in storage.list(_FOLDER, ".json"):
        try:
            sessions.append(_JSON.validate_json(storage.read(path)))
        except ValidationError:
            continue  # it says nothing that results depend on
    return sorted(sessions, key=lambda session: session.started)


def last_command(storage: Storage, plan: Plan) -> Command:
    """The command that the sweep of a storage was last run with; `plan` is what it was to train."""
    last = read(storage)[-1:]
    return last[0].command or of_plan(plan) if last else of_plan(plan)


def environment_at(sessions: Iterable[Session], time: datetime) -> dict[str, str]:
    """The environment of the session that was on at a time; nothing is said of times before the first."""
    begun = [session for session in sessions if session.started <= time]
    return begun[-1].environment if begun else {}
