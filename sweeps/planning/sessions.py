"""The sessions of a sweep: options, program and versions of each of its runs, one file each.

The ledger tells when a training ended. The session at that time tells with which commit it was trained, also when
MLflow is rebuilt much later.
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

from pydantic import AwareDatetime, TypeAdapter, ValidationError

from sweeps.planning.command import Command, of_plan
from sweeps.planning.plan import Overrides, Plan
from sweeps.records.storage import Storage

_FOLDER = "sessions"
_PACKAGES = ("torch", "ray", "optuna", "mlflow", "numpy")


@dataclass(frozen=True)
class Session:
    """One run of a sweep."""

    started: AwareDatetime
    overrides: Overrides
    environment: dict[str, str] = field(default_factory=dict[str, str])
    command: Command | None = None
    """The command that started it; None if an earlier version of the program recorded the session."""


_JSON = TypeAdapter(Session)


@cache
def environment() -> dict[str, str]:
    """The commit, user, platform and versions of this process, under the names of MLflow tags."""
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
    """The output of git in the program's checkout; empty if there is none."""
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def record(storage: Storage, overrides: Overrides, command: Command | None = None) -> None:
    """Records the session that begins, unless it equals the one before except for its time."""
    session = Session(datetime.now(UTC), overrides, environment(), command)
    before = read(storage)[-1:]
    if not before or dataclasses.replace(session, started=before[0].started) != before[0]:
        storage.write(*encoded(session))


def encoded(session: Session) -> tuple[str, bytes]:
    """The file of a session: its path in the sweep's folder, and its content."""
    return f"{_FOLDER}/{session.started:%Y%m%dT%H%M%S%f}.json", _JSON.dump_json(session)


def decoded(content: bytes) -> Session:
    """The session in a file; raises ValidationError if it is damaged."""
    return _JSON.validate_json(content)


def read(storage: Storage) -> list[Session]:
    """All readable sessions, the earliest first."""
    sessions: list[Session] = []
    for path in storage.list(_FOLDER, ".json"):
        try:
            sessions.append(decoded(storage.read(path)))
        except ValidationError:
            continue  # results do not depend on sessions
    return sorted(sessions, key=lambda session: session.started)


def last_command(storage: Storage, plan: Plan) -> Command:
    """The command with which the sweep was last run; rebuilt from `plan` if it was not recorded."""
    last = read(storage)[-1:]
    return last[0].command or of_plan(plan) if last else of_plan(plan)


def environment_at(sessions: Iterable[Session], time: datetime) -> dict[str, str]:
    """The environment of the last session that began by `time`; empty if there is none."""
    begun = [session for session in sessions if session.started <= time]
    return begun[-1].environment if begun else {}
