"""Ranks the configurations of a study. Winners, finalists, report and progress view all use this rule."""

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from search_spaces.space import Study
from sweeps.planning.plan import Member
from sweeps.records.ledger import Row

T = TypeVar("T")


class Candidate(Protocol):
    """A configuration with the results of the seeds that choose."""

    @property
    def labels(self) -> Mapping[str, Any]: ...

    @property
    def ended(self) -> Mapping[int, Row]:
        """The rows of the members that have ended, by seed; without members that confirm."""
        ...


C = TypeVar("C", bound=Candidate)


@dataclass(frozen=True)
class Results:
    """One configuration and what is known of the seeds that choose. `members`: one for each of them."""

    labels: Mapping[str, Any]
    members: tuple[Member, ...]
    ended: Mapping[int, Row]


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


def results(members: Iterable[Member], rows: Mapping[str, Row]) -> list[Results]:
    """The configurations of these members, in the order of their first members."""
    return [
        Results(same[0].labels, same, {member.config.seed: rows[member.key] for member in same if member.key in rows})
        for same in by_configuration(members)
    ]


def best_first(study: Study, candidates: Iterable[C]) -> list[C]:
    """The configurations that have a value of the study's metric, ranked by the seeds that choose."""
    return ranked(study, candidates, lambda candidate: list(candidate.ended.values()))


def by_seed(ended: Mapping[int, Row], metric: str) -> dict[int, float]:
    """A metric of the finished members by seed, where it is finite."""
    found = {seed: row.metrics.get(metric, math.nan) for seed, row in ended.items() if row.status == "finished"}
    return {seed: value for seed, value in found.items() if math.isfinite(value)}
