"""Removes passwords, absolute paths and the user's name from everything that leaves this machine."""

import dataclasses
import re
import shlex
from collections.abc import Mapping

from sweeps.planning.command import Command
from sweeps.planning.sessions import Session
from sweeps.records.ledger import Row
from sweeps.redact import redact

_PLACES = {"--data-dir": "DIR", "--studies": "DIR", "--tracking-uri": "URI", "--address": "RAY_ADDRESS"}
"""Options with the name of a place, and the word that stands for it."""
_QUOTED = re.compile(r"""(["'])(/[^"'\n]*/[^"'\n]*)\1""")
_LOCAL = re.compile(r"""\b(file|sqlite(?:\+\w+)?)://(/[^\s"']+)""")
_PATH = re.compile(r"""(?<![\w/.~-])(?<!://)/(?:[^\s"'<>/:,;()]+/)+[^\s"'<>/:,;()]*""")
_USER = "mlflow.user"


def shared_text(text: str) -> str:
    """A text without passwords; absolute paths keep only their last name."""
    text = _QUOTED.sub(lambda found: f"{found[1]}{_last(found[2])}{found[1]}", redact(text))
    text = _LOCAL.sub(lambda found: f"{found[1]}://{_last(found[2])}", text)
    return _PATH.sub(lambda found: _last(found[0]), text)


def _last(path: str) -> str:
    return f"…/{path.rstrip('/').rpartition('/')[2]}"


def shared_command(command: Command) -> str:
    """A command line as anybody can read it: options for places have a word in their place, such as DIR."""
    words = list(command.words)
    for index, word in enumerate(words[:-1]):
        if word in _PLACES:
            words[index + 1] = _PLACES[word]
    return shared_text(shlex.join(["python", "-m", "sweeps.run", *words]))


def shared_session(session: Session) -> Session:
    """A session without the user's name and without its command, which names a folder of this machine."""
    return dataclasses.replace(session, environment=shared_environment(session.environment), command=None)


def shared_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The versions, the platform and the commit of a session, without the user's name."""
    return {name: shared_text(value) for name, value in environment.items() if name != _USER}


def shared_row(row: Row) -> Row:
    """A row whose traceback has no absolute paths; the same object if there is nothing to remove."""
    detail = None if row.detail is None else shared_text(row.detail)
    return row if detail == row.detail else dataclasses.replace(row, detail=detail)
