"""Reports of a worker: the metrics of a cohort so far, and the outcome of each member at the end.

A report is sent between processes as plain data, since Ray Tune pickles it and adds its own fields. The receiver checks
it once, with `Report.from_plain`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, TypeAdapter

Status = Literal["finished", "stopped", "failed"]
"""The result of a training; "stopped" means by early stopping."""
Reason = Literal["diverged", "out_of_memory", "lost", "error"]
"""The reason why a member failed."""
Fault = Literal["storage", "data"]
"""The reason why a cohort could not be trained that is not its own fault; its members stay untrained."""
History = dict[str, np.ndarray]
"""Metrics by name, each [epochs, M] float64; NaN after a member diverged or was stopped, and for a diagnostic in epochs
when it is not due."""


class Outcome(BaseModel):
    """The result of one member, as a worker reports it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    status: Status
    reason: Reason | Fault | None = None
    detail: str | None = None
    """The traceback of an error, or another explanation of the reason."""
    epochs: int
    """The number of epochs trained; for a diverged member, the epoch in which it diverged."""
    wall_s: float
    metrics: dict[str, float]
    history: dict[str, list[float]]
    """Metrics by name, one number per epoch, from the first."""
    fit: int | None = None
    """The number of members that fit into memory together, if they did not fit and it is known."""


_OUTCOMES = TypeAdapter(tuple[Outcome, ...])


@dataclass(frozen=True)
class Report:
    """Metrics of the epochs after `since`; at the end of the training, also the outcome of each member."""

    since: int = 0
    history: History = field(default_factory=dict)
    outcomes: tuple[Outcome, ...] | None = None
    interrupted: bool = False
    """Whether the worker was asked to stop; it has then saved its checkpoint and trains no further."""

    def plain(self) -> dict[str, Any]:
        """The report as plain data."""
        outcomes = None if self.outcomes is None else [outcome.model_dump() for outcome in self.outcomes]
        return {"since": self.since, "history": self.history, "results": outcomes, "interrupted": self.interrupted}

    @classmethod
    def from_plain(cls, data: Mapping[str, Any]) -> "Report | None":
        """Reads a report from plain data; None if the data are not a report, such as Tune's own results of a trial.

        Raises:
            ValueError: a field has another type.
        """
        if "since" not in data:
            return None
        outcomes = data["results"]
        return cls(
            since=int(data["since"]),
            history={str(name): np.asarray(values, np.float64) for name, values in data["history"].items()},
            outcomes=None if outcomes is None else _OUTCOMES.validate_python(outcomes),
            interrupted=bool(data["interrupted"]),
        )


def failures(keys: Iterable[str], reason: Reason | Fault, detail: str, fit: int | None = None) -> tuple[Outcome, ...]:
    """Outcomes of members that failed, without metrics or history."""
    return tuple(
        Outcome(
            key=key,
            status="failed",
            reason=reason,
            detail=detail,
            epochs=0,
            wall_s=0.0,
            metrics={},
            history={},
            fit=fit,
        )
        for key in keys
    )
