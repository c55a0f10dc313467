"""The best configuration of a study, for status, summary and progress."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from search_spaces.space import Study
from sweeps.analysis.cells import cells, standing
from sweeps.analysis.labels import describe
from sweeps.planning.plan import Member
from sweeps.records.ledger import Row


@dataclass(frozen=True)
class Best:
    """The configuration of a study with the best mean over the seeds that choose.

    metric: the study's metric. mean: its mean over `n` of `planned` seeds.
    labels: the values that distinguish the configuration in its study.
    confirmed: whether these seeds confirm it, and chose nothing. chose: the number of seeds that chose it.
    """

    study: str
    metric: str
    mean: float
    n: int
    planned: int
    labels: Mapping[str, Any]
    confirmed: bool = False
    chose: int | None = None

    def __str__(self) -> str:
        seeds = str(self.n) if self.n == self.planned else f"{self.n} of {self.planned}"
        told = [describe(self.labels)] if self.labels else []
        fresh = " fresh seeds" if self.confirmed else ""
        return f"{self.metric} {self.mean:.4g} ({'; '.join([*told, f'n = {seeds}{fresh}'])})"


def best(study: Study, members: Iterable[Member], rows: Mapping[str, Row]) -> Best | None:
    """The best configuration of a study so far; None if no seed has finished with a finite metric."""
    cell = standing(study, cells(study, members, rows))
    if cell is None:
        return None
    confirmed = study.metric in cell.judged.mean and cell.confirmation is not None
    told = cell.judged if confirmed else cell  # while no fresh seed has finished, the seeds that chose it
    return Best(
        study=study.name,
        metric=study.metric,
        mean=told.mean[study.metric],
        n=len(told.values(study.metric)),
        planned=told.planned,
        labels=cell.labels,
        confirmed=confirmed,
        chose=len(cell.values(study.metric)),
    )
