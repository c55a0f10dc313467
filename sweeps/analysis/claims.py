"""Tests the papers' claims over paired seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from search_spaces.space import Claim, Study
from sweeps.analysis import statistics
from sweeps.analysis.cells import Cell, compared, finalists, matching, on_diagonal, ranked, standing
from sweeps.analysis.metrics import direction
from sweeps.analysis.paper import printed_difference
from sweeps.analysis.statistics import Paired
from sweeps.analysis.verdicts import Judgement, Question, Verdict, judge

BITS_PER_DIM = 0.01
"""The difference in bits/dim that does not matter, where neither the claim nor the paper says another."""
TENTH = 0.1
"""The part of the paper's difference that does not matter, unless the claim says another margin."""


@dataclass(frozen=True)
class Tested:
    """A claim with its evidence.

    better, worse: the cells compared; None for a cell without results. Seeds that confirm them judge, if there are any.
    comparison: None if the cells have no seed in common.
    margin: the largest difference that does not matter, in units of the metric; None if nobody says so.
    lost: planned seeds that are in no pair, in words; empty if there are none.
    """

    claim: Claim
    metric: str
    better: Cell | None
    worse: Cell | None
    comparison: Paired | None
    judgement: Judgement
    margin: float | None = None
    lost: str = ""

    @property
    def verdict(self) -> Verdict:
        return self.judgement.verdict


def tested(study: Study, found: Sequence[Cell]) -> list[Tested]:
    """The verdicts on a study's claims."""
    pairs = [(_best(study, found, claim.better), _best(study, found, claim.worse)) for claim in study.claims]
    questions = [
        _question(study, claim, better, worse) for claim, (better, worse) in zip(study.claims, pairs, strict=True)
    ]
    return [
        Tested(
            claim=claim,
            metric=claim.metric or study.metric,
            better=better,
            worse=worse,
            comparison=question.comparison,
            judgement=judgement,
            margin=question.margin,
            lost="; ".join(filter(None, (_lost("the better row", better), _lost("the other row", worse)))),
        )
        for claim, (better, worse), question, judgement in zip(
            study.claims, pairs, questions, judge(questions), strict=True
        )
    ]


def _question(study: Study, claim: Claim, better: Cell | None, worse: Cell | None) -> Question:
    if better is None or worse is None:
        return Question(None)
    name = claim.metric or study.metric
    theirs = None if claim.reaches is not None else printed_difference(study, better, worse, name)
    margin = claim.margin
    if margin is None and claim.reaches is None:
        margin = TENTH * theirs if theirs else BITS_PER_DIM if name == "bits_per_dim" else None
    return Question(compare(study, better, worse, claim.metric, claim.reaches), margin, theirs or None)


def _lost(row: str, cell: Cell | None) -> str:
    """The seeds of a row that did not finish: those of diverged members above all."""
    judged = cell and cell.judged
    counts = judged.counts if judged else {}
    words = [f"{counts[status]} {status}" for status in ("failed", "stopped", "missing") if counts.get(status)]
    return f"of {judged.planned} seeds of {row} {', '.join(words)}" if judged and words else ""


def compare(
    study: Study, better: Cell, worse: Cell, name: str | None = None, reaches: float | None = None
) -> Paired | None:
    """How much better one cell is than another, over the seeds that judge; None if they have no such seed in common.

    name: the metric; None for the study's.
    reaches: compare the number of epochs until the metric reaches this value. A seed that never reaches it counts as
        reaching it in the epoch after its last, which is a lower bound.
    """
    name = name or study.metric
    better, worse = better.judged, worse.judged
    if reaches is None:
        return statistics.paired(better.values(name), worse.values(name), direction(study, name))
    first, second = (_epochs(cell, cell.reached(name, reaches, direction(study, name))) for cell in (better, worse))
    return statistics.paired(first, second, "min")


def _epochs(cell: Cell, reached: Mapping[int, int | None]) -> dict[int, float]:
    return {seed: epoch or cell.finished[seed].epochs + 1 for seed, epoch in reached.items()}


def rival(study: Study, found: Sequence[Cell]) -> Cell | None:
    """The cell to compare the best one with: the second best row of the table, or the second best finalist.

    If the study has a heatmap and the best cell lies off its diagonal, it is the best cell on the diagonal.
    """
    best, *others = ranked(study, finalists(compared(study, found))) or [None]
    if best is None:
        return None
    if study.heatmap and not on_diagonal(study, best.labels):
        return standing(study, [cell for cell in found if on_diagonal(study, cell.labels)])
    return others[0] if others else None


def ahead(study: Study, found: Sequence[Cell]) -> list[tuple[Cell, Paired]]:
    """The finalists that are significantly better than the best one by the seeds that confirm, and by how much.

    The seeds that choose say which one is the best. One-sided paired t-tests, corrected after Holm for all finalists.
    """
    best = standing(study, found)
    if best is None or best.confirmation is None:
        return []
    others = [(cell, compare(study, cell, best)) for cell in finalists(found) if cell is not best]
    tests = [(cell, comparison) for cell, comparison in others if comparison is not None and comparison.enough]
    corrected = statistics.holm([comparison.t_p for _, comparison in tests])
    return [each for each, p in zip(tests, corrected, strict=True) if p < statistics.LEVEL]


def _best(study: Study, found: Sequence[Cell], labels: Mapping[str, Any]) -> Cell | None:
    return standing(study, matching(found, labels))
