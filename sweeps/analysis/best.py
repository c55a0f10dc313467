"""The best configuration of a study, for status, summary and progress."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from search_spaces.space import Study
from sweeps.analysis.cells import cells, ranked
from sweeps.analysis.labels import describe
from sweeps.planning.plan import Member
from sweeps.records.ledger import Row


@dataclass(frozen=True)
class Best:
    """The configuration of a study with the best mean over seeds.

    metric: the study's metric. mean: its mean over `n` of `planned` seeds.
    labels: the values that distinguish the configuration in its study.
    """

    study: str
    metric: str
    mean: float
    n: int
    planned: int
    labels: Mapping[str, Any]

    def __str__(self) -> str:
        seeds = str(self.n) if self.n == self.planned else f"{self.n} of {self.planned}"
        told = [describe(self.labels)] if self.labels else []
        return f"{self.metric} {self.mean:.4g} ({'; '.join([*told, f'n = {seeds}'])})"


def best(study: Study, members: Iterable[Member], rows: Mapping[str, Row]) -> Best | None:
    """The best configuration of a study so far; None if no seed has finished with a finite metric."""
    for cell in ranked(study, cells(study, members, rows))[:1]:
        values = cell.values(study.metric)
        return Best(study.name, study.metric, cell.mean[study.metric], len(values), cell.planned, cell.labels)
    return None
