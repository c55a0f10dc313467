"""How far the run at work has come, as its driver last wrote it: what `sweeps.status` knows of members in training."""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Self

from pydantic import TypeAdapter, ValidationError

from sweeps.records.storage import Storage

_FILE = "progress.json"


@dataclass(frozen=True)
class InTraining:
    """The members of a study in training.

    epoch: the last one that any of them has reached, of `epochs`.
    value: the best value of the study's metric that any of them had after an epoch; None if no value was finite.
    """

    epoch: int
    epochs: int
    value: float | None


@dataclass(frozen=True)
class RunSnapshot:
    """The seconds that the run still takes, if that can be said, and the studies that have members in training."""

    left_s: float | None = None
    studies: Mapping[str, InTraining] = field(default_factory=dict[str, InTraining])

    def write(self, storage: Storage) -> None:
        """Replaces the one before; raises UserError where the storage cannot be written."""
        storage.write(_FILE, json.dumps(asdict(self)).encode())

    @classmethod
    def read(cls, storage: Storage) -> Self:
        """The last snapshot, with the seconds left from now; an empty one if there is none.

        Raises:
            UserError: the storage cannot be read.
        """
        try:
            written_s = storage.modified_s(_FILE)
            found = TypeAdapter(cls).validate_json(storage.read(_FILE))
        except (FileNotFoundError, ValidationError):
            return cls()
        left_s = None if found.left_s is None else max(0.0, found.left_s - max(0.0, time.time() - written_s))
        return cls(left_s, found.studies)


def delete(storage: Storage) -> None:
    """Deletes the snapshot, if there is one: a run has ended, or begins after one that was killed."""
    storage.delete(_FILE)
