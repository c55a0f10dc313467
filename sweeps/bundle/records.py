"""The records of a sweep from which it can be continued, as files of a bundle: which there are, and what each must be.

They lie in `storage/NAME/`, laid out as in a storage.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from search_spaces.space import STUDY_NAME, SWEEP_NAME
from sweeps.planning import saved, sessions
from sweeps.planning.choices import RecordedChoice
from sweeps.records.ledger import Row, rows_of
from trainables.config import TrainingConfig

FOLDER = "storage"
LEDGER, CHOICES, SUGGESTIONS, SESSIONS = "ledger", "choices", "suggestions", "sessions"
_STUDY = STUDY_NAME.pattern
NAMES: Mapping[str, re.Pattern[str]] = {
    LEDGER: re.compile(r"ledger/[0-9a-f]{32}\.parquet"),
    CHOICES: re.compile(rf"choices/{_STUDY}/[0-9a-f]{{16}}\.json"),
    SUGGESTIONS: re.compile(rf"suggestions/{_STUDY}/[0-9a-f]{{12}}/\d{{5}}\.json"),
    SESSIONS: re.compile(r"sessions/\d{8}T\d{12}\.json"),
    saved.PLAN: re.compile(re.escape(saved.PLAN)),
}
"""The names of the records of each kind."""


class _Batch(BaseModel):
    """A file of suggestions."""

    format: int
    suggestions: list[dict[str, Any]]


def kind_of(path: str) -> str | None:
    """The kind of a record, by its path in the sweep's folder; None if no record is named so."""
    return next((kind for kind, name in NAMES.items() if name.fullmatch(path)), None)


def is_sweep(name: str) -> bool:
    """Whether a sweep may have this name."""
    return SWEEP_NAME.fullmatch(name) is not None


def check(path: str, content: bytes) -> list[Row]:
    """Checks a record; returns its rows, if it is a file of the ledger.

    Raises:
        Exception: it is damaged or foreign. A file of the ledger must match the hash in its name, and the key of each
            row must be the one of its configuration.
    """
    match kind_of(path):
        case "ledger":
            rows = rows_of(path, content)
            for row in rows:
                if TrainingConfig.model_validate(dict(row.config)).key() != row.key:
                    raise ValueError(f"member {row.key} has another configuration")
                dict(row.history)  # decodes the histories, which is late otherwise
            return rows
        case "choices":
            RecordedChoice.model_validate_json(content)
        case "suggestions":
            _Batch.model_validate_json(content)
        case "sessions":
            sessions.decoded(content)
        case saved.PLAN:
            saved.decoded(content)
        case _:
            raise ValueError("no record of a sweep has this name")
    return []


def same(path: str, content: bytes, other: bytes) -> bool:
    """Whether two records of one name say the same."""
    return content == other or (path.endswith(".json") and json.loads(content) == json.loads(other))


def result(row: Row) -> str:
    """Everything that a row tells of its member, without the traceback of an error; equal for equal results."""
    told = [row.key, row.status, row.reason, row.epochs, row.wall_s, row.ended.isoformat()]
    return json.dumps([*told, dict(row.config), dict(row.metrics), dict(row.history)], sort_keys=True)
