"""Aggregates members over seeds: the cells of a study, and the best of them.

With `--confirm`, a finalist has two sets of seeds. Those that choose rank it, also against its rivals; those that
confirm it, and chose nothing, give all numbers that are reported of it (`Cell.judged`).
"""

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from search_spaces.space import Study
from sweeps.analysis.metrics import Mode
from sweeps.analysis.statistics import Mean, mean
from sweeps.planning import ranking
from sweeps.planning.plan import Member
from sweeps.planning.rows import groups, matching, on_diagonal
from sweeps.records.ledger import Row

__all__ = ["Cell", "cells", "compared", "finalists", "groups", "matching", "on_diagonal", "ranked", "standing"]


@dataclass(frozen=True)
class Cell:
    """One configuration, with its results by seed.

    labels: the values that distinguish it in its study.
    members: one for each seed that chooses.
    ended: the rows of the members that have ended, by seed.
    confirmation: the same configuration with the seeds that confirm it; None if it is no finalist.
    """

    labels: dict[str, Any]
    members: tuple[Member, ...]
    ended: Mapping[int, Row]
    confirmation: "Cell | None" = None

    @property
    def judged(self) -> "Cell":
        """The cell with the seeds that judge it: of a finalist those that confirm it, else those that choose."""
        return self.confirmation or self

    @cached_property
    def finished(self) -> dict[int, Row]:
        """The rows that count, by seed: neither failed nor stopped early."""
        return {seed: row for seed, row in self.ended.items() if row.status == "finished"}

    @property
    def n(self) -> int:
        """Seeds that finished."""
        return len(self.finished)

    @property
    def planned(self) -> int:
        """Seeds that were planned."""
        return len(self.members)

    @cached_property
    def counts(self) -> Counter[str]:
        """Members by status: finished, stopped, failed or missing."""
        found = Counter(row.status for row in self.ended.values())
        found["missing"] = self.planned - len(self.ended)
        return +found

    def values(self, metric: str, epoch: int | None = None) -> dict[int, float]:
        """A metric by seed: the final one, or after an epoch (from 1)."""
        if epoch is None:
            return ranking.by_seed(self.ended, metric)
        histories = {seed: row.history.get(metric, []) for seed, row in self.finished.items()}
        found = {seed: h[epoch - 1] for seed, h in histories.items() if epoch <= len(h)}
        return {seed: value for seed, value in found.items() if math.isfinite(value)}

    def average(self, metric: str, epoch: int | None = None) -> Mean | None:
        """The mean of a metric over seeds; None if no seed has it."""
        values = list(self.values(metric, epoch).values())
        return mean(values) if values else None

    def reached(self, metric: str, target: float, mode: Mode) -> dict[int, int | None]:
        """The first epoch (from 1) at which a metric is as good as a target, by seed; None if it never is."""
        return {seed: _first(row.history.get(metric, ()), target, mode) for seed, row in self.finished.items()}

    @cached_property
    def mean(self) -> dict[str, float]:
        """The mean of each metric over seeds."""
        names = dict.fromkeys(name for row in self.finished.values() for name in row.metrics)
        values = {name: self.values(name).values() for name in names}
        return {name: statistics.fmean(of_seeds) for name, of_seeds in values.items() if of_seeds}


def _first(history: Sequence[float], target: float, mode: Mode) -> int | None:
    good = (lambda value: value <= target) if mode == "min" else (lambda value: value >= target)
    return next((epoch for epoch, value in enumerate(history, start=1) if good(value)), None)


def cells(study: Study, members: Iterable[Member], rows: Mapping[str, Row]) -> list[Cell]:
    """The cells of a study, in the order of the plan."""
    own = [member for member in members if member.study == study.name]
    confirming = {repr(each.labels): each for each in _cells((m for m in own if m.confirms), rows)}
    choosing = _cells((member for member in own if not member.confirms), rows)
    return [replace(cell, confirmation=confirming.get(repr(cell.labels))) for cell in choosing]


def _cells(members: Iterable[Member], rows: Mapping[str, Row]) -> list[Cell]:
    return [Cell(dict(each.labels), each.members, each.ended) for each in ranking.results(members, rows)]


def ranked(study: Study, found: Iterable[Cell]) -> list[Cell]:
    """The cells with a value of the study's metric, the best first by the seeds that choose."""
    return ranking.best_first(study, found)


def finalists(found: Iterable[Cell]) -> list[Cell]:
    """The cells that are confirmed; all cells if none is."""
    every = list(found)
    return [cell for cell in every if cell.confirmation] or every


def standing(study: Study, found: Iterable[Cell]) -> Cell | None:
    """The cell that stands for others: the best finalist by the seeds that choose; the best cell without finalists."""
    return next(iter(ranked(study, finalists(found))), None)


def compared(study: Study, found: Sequence[Cell]) -> list[Cell]:
    """The cell that stands for each row of the table (`compare` labels); all ranked cells if it has no such labels."""
    if not study.compare:
        return ranked(study, finalists(found))
    return [best for group in groups(study.compare, found) if (best := standing(study, group))]
