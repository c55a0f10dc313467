"""Aggregates members over seeds: mean, standard error, the best configuration of each row of a table."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from search_spaces.space import Study
from sweeps.ledger import Row
from sweeps.plan import Member

SHOWN = ("bits_per_dim", "elbo", "kl", "mse", "bce")


@dataclass(frozen=True)
class Cell:
    """One configuration: its labels, and each metric's mean and standard error over seeds."""

    labels: dict[str, Any]
    n: int
    """Seeds that finished."""
    planned: int
    """Seeds that were planned."""
    mean: dict[str, float]
    stderr: dict[str, float]
    """NaN with fewer than two seeds."""


def cells(study: Study, members: Iterable[Member], rows: Mapping[str, Row]) -> list[Cell]:
    """The cells of a study, in the order of the plan."""
    by_labels: dict[str, list[Member]] = {}
    for member in members:
        if member.study == study.name:
            by_labels.setdefault(repr(member.labels), []).append(member)
    return [_cell(same, rows) for same in by_labels.values()]


def _cell(members: Sequence[Member], rows: Mapping[str, Row]) -> Cell:
    done = [rows[m.key].metrics for m in members if m.key in rows and rows[m.key].status != "failed"]
    values = {name: [metrics[name] for metrics in done if name in metrics] for name in SHOWN}
    values = {name: numbers for name, numbers in values.items() if numbers}
    return Cell(
        labels=members[0].labels,
        n=len(done),
        planned=len(members),
        mean={name: statistics.fmean(numbers) for name, numbers in values.items()},
        stderr={
            name: statistics.stdev(numbers) / math.sqrt(len(numbers)) if len(numbers) > 1 else math.nan
            for name, numbers in values.items()
        },
    )


def ranked(study: Study, found: Iterable[Cell]) -> list[Cell]:
    """The cells that have finished seeds, the best mean of the study's metric first."""
    sign = 1 if study.mode == "min" else -1
    return sorted((c for c in found if study.metric in c.mean), key=lambda cell: sign * cell.mean[study.metric])


def compared(study: Study, found: Sequence[Cell]) -> list[Cell]:
    """The rows of the study's table: for each combination of its `compare` labels the best cell."""
    if not study.compare:
        return ranked(study, found)
    groups: dict[str, list[Cell]] = {}
    for cell in found:
        groups.setdefault(repr([cell.labels[name] for name in study.compare]), []).append(cell)
    return [ranked(study, group)[0] for group in groups.values() if ranked(study, group)]
