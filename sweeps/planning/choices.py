"""Choices as the ledger keeps them: winners that studies take from, and finalists."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Evidence(BaseModel):
    """A candidate in a choice: one configuration.

    mean: mean of the metric over the `n` seeds that have a value; `planned` is the number of all seeds.
    values: the fields that would be taken, by dotted path.
    """

    model_config = ConfigDict(frozen=True)

    labels: dict[str, Any]
    mean: float
    n: int
    planned: int
    values: dict[str, Any]


class RecordedChoice(BaseModel):
    """Values that a study takes from the best configuration of another study, and the evidence; kept in the ledger."""

    model_config = ConfigDict(frozen=True, populate_by_name=True)

    source: str = Field("", serialization_alias="from")
    match: dict[str, Any] = {}
    metric: str = ""
    mode: str = "min"
    values: dict[str, Any]
    """Taken fields by dotted path."""
    winner: Evidence | None = None
    evidence: tuple[Evidence, ...] = ()
