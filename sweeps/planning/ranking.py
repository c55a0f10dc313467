"""Ranks the configurations of a study. Winners, report and progress view all use this rule."""

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from search_spaces.space import Study
from sweeps.planning.plan import Member
from sweeps.records.ledger import Row

T = TypeVar("T")


def by_configuration(members: Iterable[Member]) -> list[tuple[Member, ...]]:
    """Groups of members that differ only in their seed, in the order of their first members."""
    found: dict[str, list[Member]] = {}
    for member in members:
        found.setdefault(repr(member.labels), []).append(member)
    return [tuple(same) for same in found.values()]


def values(rows: Iterable[Row], metric: str) -> list[float]:
    """The metric of the rows that are finished and have a finite value."""
    found = [row.metrics.get(metric, math.nan) for row in rows if row.status == "finished"]
    return [value for value in found if math.isfinite(value)]


def ranked(study: Study, candidates: Iterable[T], rows_of: Callable[[T], Sequence[Row]]) -> list[T]:
    """The candidates that have a value of the study's metric, the best first.

    The mean over seeds decides. A configuration with a seed that ended without a value (failed, stopped early, no
    metric, or not finite) comes last, because the mean of its other seeds is biased in its favour. Seeds that have not
    ended are ignored. Candidates with equal means keep their order.

    Args:
        study: the study; its metric and mode decide.
        candidates: configurations, in the order of the plan.
        rows_of: returns the rows of a candidate's seeds that have ended.
    """
    sign = 1 if study.mode == "min" else -1
    keys: list[tuple[bool, float, T]] = []
    for candidate in candidates:
        rows = rows_of(candidate)
        if found := values(rows, study.metric):
            keys.append((len(found) < len(rows), sign * statistics.fmean(found), candidate))
    return [candidate for _, _, candidate in sorted(keys, key=lambda key: key[:2])]


def ended(members: Iterable[Member], rows: Mapping[str, Row]) -> list[Row]:
    """The rows of the members that have ended."""
    return [rows[member.key] for member in members if member.key in rows]
