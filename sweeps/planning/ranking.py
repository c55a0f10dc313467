"""Which configuration of a study is best: the one rule by which winners are taken, reported and shown."""

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from search_spaces.space import Study
from sweeps.planning.plan import Member
from sweeps.records.ledger import Row

T = TypeVar("T")


def by_configuration(members: Iterable[Member]) -> list[tuple[Member, ...]]:
    """Members that differ in their seed alone, together, in the order of the first of each."""
    found: dict[str, list[Member]] = {}
    for member in members:
        found.setdefault(repr(member.labels), []).append(member)
    return [tuple(same) for same in found.values()]


def values(rows: Iterable[Row], metric: str) -> list[float]:
    """The metric of the rows that count: finished, with a finite value."""
    found = [row.metrics.get(metric, math.nan) for row in rows if row.status == "finished"]
    return [value for value in found if math.isfinite(value)]


def ranked(study: Study, candidates: Iterable[T], rows_of: Callable[[T], Sequence[Row]]) -> list[T]:
    """The candidates that have a value of the study's metric, the best first.

    The mean over seeds decides. Configurations with a seed that ended without a value (failed, stopped early, lacking
    the metric, or not finite) come last: the mean of the other seeds flatters them. Seeds that have not ended count
    neither way. Of equal ones the first stays first.

    Args:
        study: its metric and mode decide.
        candidates: configurations, in the order of the plan.
        rows_of: the rows of a candidate's seeds that have ended.
    """
    sign = 1 if study.mode == "min" else -1
    keys: list[tuple[bool, float, T]] = []
    for candidate in candidates:
        rows = rows_of(candidate)
        if found := values(rows, study.metric):
            keys.append((len(found) < len(rows), sign * statistics.fmean(found), candidate))
    return [candidate for _, _, candidate in sorted(keys, key=lambda key: key[:2])]


def ended(members: Iterable[Member], rows: Mapping[str, Row]) -> list[Row]:
    """The rows of those members that have one."""
    return [rows[member.key] for member in members if member.key in rows]
