"""Decides what paired comparisons say about claims: four verdicts, corrected for the number of claims.

A claim says that one row is better than another. The data can show that it is (reproduced), that it is worse
(contradicted), that the difference is too small to matter (equivalent), or none of the three (undecided).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from sweeps.analysis.statistics import ENOUGH, LEVEL, POWER, Paired, holm

RULE = (
    f"Claims are tested over paired seeds, at least {ENOUGH}. Reproduced: the mean difference favours the claim "
    f"(one-sided t-test, p < {LEVEL}). Contradicted: the opposite holds (p < {LEVEL / 2}, the 95 % interval is on the "
    f"other side). Equivalent: the difference is within the claim's margin (two one-sided t-tests, p < {LEVEL}). "
    "Undecided: none of the three; the table says how many further seeds would find the difference with probability "
    f"{POWER} at the spread observed. The p values are corrected after Holm for the study's claims. Wilcoxon's "
    "signed-rank test stands beside them and decides nothing."
)
UNCONFIRMED = (
    "Where a row is the best of several configurations, the same seeds chose it, which favours rows with more "
    "configurations (docs/verdicts.md says how much; --confirm judges by fresh seeds)."
)
CONFIRMED = (
    "The seeds of a study choose its best configurations; seeds that chose nothing judge them. All numbers of a "
    "confirmed row, its verdicts and the first sentence of a study are over these fresh seeds alone."
)


def rule(confirmed: bool) -> str:
    """How verdicts are found, for readers of a report. confirmed: whether fresh seeds judge."""
    return f"{RULE} {CONFIRMED if confirmed else UNCONFIRMED}"


class Verdict(StrEnum):
    """What the data say about a claim."""

    REPRODUCED = "reproduced"
    CONTRADICTED = "contradicted"
    EQUIVALENT = "equivalent"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class Question:
    """A claim's comparison, and what is to be found.

    comparison: positive differences favour the claim; None without a common seed.
    margin: differences up to this do not matter; None if nobody says so: then nothing is equivalent.
    expected: the difference that the paper prints, for the number of seeds; None for the larger of the one observed
        and the margin.
    """

    comparison: Paired | None
    margin: float | None = None
    expected: float | None = None


@dataclass(frozen=True)
class Judgement:
    """A verdict with its evidence.

    p_better, p_worse, p_equivalent: p values after Holm; None with too few seeds, p_equivalent also without a margin.
    further: how many more seeds an undecided claim needs; None if it is decided or the number is unknown or too large.
    """

    verdict: Verdict
    p_better: float | None = None
    p_worse: float | None = None
    p_equivalent: float | None = None
    further: int | None = None


def judge(questions: Sequence[Question]) -> list[Judgement]:
    """The verdicts on the claims of one study, in their order."""
    better = _corrected(questions, lambda q, c: c.p_above(0))
    worse = _corrected(questions, lambda q, c: c.p_below(0))
    same = _corrected(questions, lambda q, c: math.nan if q.margin is None else c.p_within(q.margin))
    return [_judgement(*each) for each in zip(questions, better, worse, same, strict=True)]


def _corrected(questions: Sequence[Question], test: Callable[[Question, Paired], float]) -> list[float | None]:
    """The p values of one test, corrected for the questions that it can be asked."""
    found = [test(q, q.comparison) if q.comparison and q.comparison.enough else math.nan for q in questions]
    corrected = iter(holm([p for p in found if not math.isnan(p)]))
    return [None if math.isnan(p) else next(corrected) for p in found]


def _judgement(question: Question, better: float | None, worse: float | None, same: float | None) -> Judgement:
    if better is not None and better < LEVEL:
        verdict = Verdict.REPRODUCED
    elif worse is not None and worse < LEVEL / 2:
        verdict = Verdict.CONTRADICTED
    elif same is not None and same < LEVEL:
        verdict = Verdict.EQUIVALENT
    else:
        return Judgement(Verdict.UNDECIDED, better, worse, same, _further(question))
    return Judgement(verdict, better, worse, same)


def _further(question: Question) -> int | None:
    """How many more seeds a test needs. At least one: with the seeds at hand the claim is undecided."""
    comparison = question.comparison
    if comparison is None:
        return ENOUGH
    if comparison.gain.n < 2:
        return ENOUGH - comparison.gain.n
    needed = comparison.seeds_needed(question.expected or max(abs(comparison.gain.value), question.margin or 0.0))
    return None if needed is None else max(needed - comparison.gain.n, 1)
