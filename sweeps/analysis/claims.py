"""Tests the papers' claims over paired seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from search_spaces.space import Claim, Study
from sweeps.analysis import statistics
from sweeps.analysis.cells import Cell, compared, matching, ranked
from sweeps.analysis.metrics import direction
from sweeps.analysis.statistics import Paired, holm

RULE = (
    f"A claim counts as reproduced where the mean paired difference over at least {statistics.ENOUGH} seeds favours it "
    f"with p < {statistics.LEVEL} in a one-sided paired t-test, p values of one study's claims corrected after Holm. "
    "Wilcoxon's signed-rank test stands beside it and decides nothing. Where a row is the best of several "
    "configurations, these were chosen on the same seeds, which favours rows with more of them."
)


class Verdict(StrEnum):
    """The result of testing a claim."""

    REPRODUCED = "reproduced"
    NOT_REPRODUCED = "not reproduced"
    TOO_FEW = "not yet enough seeds"


@dataclass(frozen=True)
class Tested:
    """A claim with its evidence.

    better, worse: the cells compared; None for a cell without results.
    comparison: None if the cells have no seed in common.
    p: p value of the paired t-test, corrected for the study's other claims; None if there are too few seeds.
    """

    claim: Claim
    metric: str
    better: Cell | None
    worse: Cell | None
    comparison: Paired | None
    p: float | None
    verdict: Verdict


def tested(study: Study, found: Sequence[Cell]) -> list[Tested]:
    """The verdicts on a study's claims."""
    pairs = [(_best(study, found, claim.better), _best(study, found, claim.worse)) for claim in study.claims]
    comparisons = [
        compare(study, better, worse, claim.metric, claim.reaches) if better and worse else None
        for claim, (better, worse) in zip(study.claims, pairs, strict=True)
    ]
    testable = [index for index, c in enumerate(comparisons) if c is not None and c.enough]
    p_values = dict(zip(testable, holm([_p(comparisons[index]) for index in testable]), strict=True))
    return [
        Tested(
            claim=claim,
            metric=claim.metric or study.metric,
            better=better,
            worse=worse,
            comparison=comparison,
            p=p_values.get(index),
            verdict=_verdict(p_values.get(index)),
        )
        for index, (claim, (better, worse), comparison) in enumerate(zip(study.claims, pairs, comparisons, strict=True))
    ]


def compare(
    study: Study, better: Cell, worse: Cell, name: str | None = None, reaches: float | None = None
) -> Paired | None:
    """How much better one cell is than another; None if they have no seed in common.

    name: the metric; None for the study's.
    reaches: compare the number of epochs until the metric reaches this value. A seed that never reaches it counts as
        reaching it in the epoch after its last, which is a lower bound.
    """
    name = name or study.metric
    if reaches is None:
        return statistics.paired(better.values(name), worse.values(name), direction(study, name))
    first, second = (_epochs(cell, cell.reached(name, reaches, direction(study, name))) for cell in (better, worse))
    return statistics.paired(first, second, "min")


def _epochs(cell: Cell, reached: Mapping[int, int | None]) -> dict[int, float]:
    return {seed: epoch or cell.finished[seed].epochs + 1 for seed, epoch in reached.items()}


def rival(study: Study, found: Sequence[Cell]) -> Cell | None:
    """The cell to compare the best one with: the second best row of the table.

    If the study has a heatmap and the best cell lies off its diagonal, it is the best cell on the diagonal.
    """
    best, *others = ranked(study, compared(study, found)) or [None]
    if best is None:
        return None
    if study.heatmap and not _equal(best, study.heatmap):
        return next((cell for cell in ranked(study, found) if _equal(cell, study.heatmap)), None)
    return others[0] if others else None


def _equal(cell: Cell, names: tuple[str, str]) -> bool:
    return cell.labels.get(names[0]) == cell.labels.get(names[1])


def _best(study: Study, found: Sequence[Cell], labels: Mapping[str, Any]) -> Cell | None:
    return next(iter(ranked(study, matching(found, labels))), None)


def _p(comparison: Paired | None) -> float:
    assert comparison is not None
    return comparison.t_p


def _verdict(p: float | None) -> Verdict:
    if p is None:
        return Verdict.TOO_FEW
    return Verdict.REPRODUCED if p < statistics.LEVEL else Verdict.NOT_REPRODUCED
