"""A study's members as data for the page: a table to filter, parallel coordinates, and pairs to compare.

Data that would make the page slow or large are sampled: `Explorer.notes` says so on the page.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from search_spaces.space import Study
from sweeps.analysis.cells import Cell, ranked
from sweeps.analysis.labels import label, readable
from sweeps.analysis.metrics import SHOWN, direction, metric
from sweeps.records.ledger import Row

MOST_MEMBERS = 10_000
"""Members of a study in the page."""
MOST_POINTS = 400_000
"""Points of a study's learning curves in the page."""
MOST_EPOCHS = 100
"""Points of one learning curve; longer ones are thinned."""


@dataclass(frozen=True)
class Column:
    """A field of the members.

    path: the dotted path in the configuration, or the name of a variant. values: the distinct values; None for no
    value. at: for each member the place of its value.
    """

    path: str
    title: str
    values: list[float | str | None]
    at: list[int]


@dataclass(frozen=True)
class Numbers:
    """A final metric of each member; None if it has none."""

    name: str
    title: str
    values: list[float | None]


@dataclass(frozen=True)
class CurveSet:
    """A metric's learning curves. epochs: of the points (from 1). members: places of the members that have one."""

    name: str
    title: str
    epochs: list[int]
    members: list[int]
    values: list[list[float | None]]


@dataclass(frozen=True)
class Explorer:
    """The members of a study as the page's script reads them.

    mode: whether less or more of the first metric is better. labels: the fields that distinguish members.
    differing: all fields of the configuration that differ between members. same: title, path and value of the others.
    """

    mode: str
    labels: list[Column]
    differing: list[Column]
    same: list[tuple[str, str, str]]
    status: Column
    seeds: list[int]
    keys: list[str]
    metrics: list[Numbers]
    curves: list[CurveSet]
    total: int
    notes: list[str] = field(default_factory=list)


def explorer(study: Study, found: Sequence[Cell]) -> Explorer | None:
    """The members that have ended, the best configuration first; None if there are fewer than two."""
    best = ranked(study, found)
    ranks = {id(cell): place for place, cell in enumerate(best)}
    ordered = [*best, *(cell for cell in found if id(cell) not in ranks)]
    every = [
        (cell, member, cell.ended[member.config.seed])
        for own in ordered
        for cell in (own, own.confirmation)
        if cell
        for member in cell.members
        if member.config.seed in cell.ended
    ]
    if len(every) < 2:
        return None
    notes = []
    shown = [every[i] for i in _sampled(len(every), MOST_MEMBERS)]
    if len(shown) < len(every):
        notes.append(
            f"{len(shown):,} of {len(every):,} members are here: those of the best configurations and an even sample "
            "of the others. results.parquet has all."
        )
    members, rows = [member for _, member, _ in shown], [row for *_, row in shown]
    names = [study.metric, *(name for name in (*(study.columns or ()), *SHOWN) if name != study.metric)]
    curves, told = _curves(names, rows)
    flat = [member.config.flat() for member in members]
    paths = list(dict.fromkeys(path for each in flat for path in each if path != "seed"))
    fields = [_column(path, [each.get(path) for each in flat]) for path in paths]
    labelled = list(dict.fromkeys(name for cell, *_ in shown for name in cell.labels))
    labels = [_column(name, [cell.labels.get(name) for cell, *_ in shown]) for name in labelled]
    if any(member.confirms for member in members):
        labels.append(_column("role of the seed", ["confirms" if each.confirms else "chooses" for each in members]))
    return Explorer(
        mode=direction(study, study.metric),
        labels=labels,
        differing=[each for each in fields if len(each.values) > 1],
        same=[(each.title, each.path, _text(each.values[0])) for each in fields if len(each.values) == 1],
        status=_column("status", [_status(row) for row in rows]),
        seeds=[member.config.seed for member in members],
        keys=[member.key for member in members],
        metrics=_metrics(names, rows),
        curves=curves,
        total=len(every),
        notes=notes + told,
    )


def _sampled(count: int, most: int) -> list[int]:
    """The places of at most so many of a ranked list: the first half of them from its start, the others evenly."""
    if count <= most:
        return list(range(count))
    first = most // 2
    return [*range(first), *np.linspace(first, count - 1, most - first).astype(int).tolist()]


def _column(path: str, values: Iterable[Any]) -> Column:
    places: dict[str, int] = {}
    distinct: list[float | str | None] = []
    at = []
    for value in values:
        key = repr(value)
        if key not in places:
            places[key] = len(distinct)
            distinct.append(_plain(value))
        at.append(places[key])
    return Column(path, readable(path), distinct, at)


def _plain(value: Any) -> float | str | None:
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        return value
    return label(value)


def _text(value: float | str | None) -> str:
    return "none" if value is None else label(value)


def _status(row: Row) -> str:
    return f"{row.status}: {row.reason.replace('_', ' ')}" if row.reason else row.status


def _metrics(names: Iterable[str], rows: Sequence[Row]) -> list[Numbers]:
    """The final metrics that some member has."""
    numbers = [
        Numbers(name, metric(name).title, [_finite(row.metrics.get(name)) for row in rows])
        for name in dict.fromkeys(names)
    ]
    return [each for each in numbers if any(value is not None for value in each.values)]


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(f"{value:.8g}")


def _curves(names: Iterable[str], rows: Sequence[Row]) -> tuple[list[CurveSet], list[str]]:
    """Learning curves of as many metrics, then of as many members, as fit into the page; and what is left out."""
    longest = max((row.epochs for row in rows), default=0)
    epochs = _thinned(longest)
    sets: list[CurveSet] = []
    notes = [] if len(epochs) == longest else [f"Learning curves have {len(epochs)} of {longest} epochs."]
    left = MOST_POINTS
    for name in dict.fromkeys(names):
        most = left // max(1, len(epochs))
        if sets and most < len(rows):
            break
        chosen = [i for i in _sampled(len(rows), most) if name in rows[i].history]
        values = [_at(rows[i].history, name, epochs) for i in chosen]
        if any(value is not None for each in values for value in each):
            sets.append(CurveSet(name, metric(name).title, epochs, chosen, values))
            left -= len(rows) * len(epochs)
            if most < len(rows):
                notes.append(f"Learning curves of {len(chosen):,} members are here; history.parquet has all.")
    return sets, notes


def _thinned(count: int) -> list[int]:
    """At most `MOST_EPOCHS` epochs, evenly; with the first and the last."""
    return np.unique(np.linspace(1, count, min(count, MOST_EPOCHS)).round().astype(int)).tolist() if count else []


def _at(history: Mapping[str, Sequence[float]], name: str, epochs: Sequence[int]) -> list[float | None]:
    curve = history[name]
    return [_short(curve[epoch - 1]) for epoch in epochs if epoch <= len(curve)]


def _short(value: float) -> float | None:
    return float(f"{value:.5g}") if math.isfinite(value) else None
