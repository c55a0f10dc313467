"""Compares our numbers with the printed ones: which belong together, and whether both can be of one truth."""

import math
from dataclasses import dataclass
from typing import Any

from scipy import stats
from statsmodels.stats.power import TTestPower

from search_spaces.published import Number, published
from search_spaces.space import Study
from sweeps.analysis.cells import Cell, matching
from sweeps.analysis.statistics import CONFIDENCE, LEVEL, POWER, Mean


def printed(study: Study) -> tuple[Number, ...]:
    """The paper's numbers for a study; none if the paper has no table of them."""
    return published(study.published) if study.published else ()


def belongs(number: Number, cell: Cell) -> bool:
    """Whether a printed number is of this row."""
    return bool(matching([cell], number.labels))


def printed_for(study: Study, cell: Cell, metric: str, epoch: int | None = None) -> Number | None:
    """The printed number of a row; None if there is none."""
    same = (number for number in printed(study) if (number.metric, number.epoch) == (metric, epoch))
    return next((number for number in same if belongs(number, cell)), None)


def printed_difference(study: Study, first: Cell, second: Cell, metric: str) -> float | None:
    """How far the printed numbers of two rows are apart, at least 0; None if one of both is not printed."""
    numbers = [printed_for(study, cell, metric) for cell in (first, second)]
    if numbers[0] is None or numbers[1] is None:
        return None
    return abs(numbers[0].value - numbers[1].value)


@dataclass(frozen=True)
class Consistency:
    """Whether our mean can be of the same truth as the printed one.

    low, high: the interval in which a repetition of the paper would have its mean over our number of seeds, with 95 %
        probability; None if the paper gives no number of trainings or no standard error.
    sees: the difference that a test of our mean would find with probability `POWER`; None with fewer than two seeds.
    """

    value: float
    low: float | None = None
    high: float | None = None
    sees: float | None = None

    @property
    def consistent(self) -> bool | None:
        """None if the paper's number has no interval."""
        return None if self.low is None or self.high is None else self.low <= self.value <= self.high


def consistency(own: Mean, number: Number) -> Consistency:
    """Compares our mean with a printed number.

    The prediction interval of the mean of n new trainings, from a printed mean over m with standard error s, is
    mean ± t(m − 1) · s · sqrt(1 + m / n); it assumes that single trainings are normally distributed.
    """
    if number.stderr is not None and number.n is not None and number.n >= 2:
        half = float(stats.t.ppf((1 + CONFIDENCE) / 2, number.n - 1)) * number.stderr * math.sqrt(1 + number.n / own.n)
        return Consistency(own.value, number.value - half, number.value + half)
    if own.n < 2:
        return Consistency(own.value)
    effect: Any = TTestPower().solve_power(nobs=own.n, alpha=LEVEL, power=POWER)
    return Consistency(own.value, sees=float(effect) * own.stderr * math.sqrt(own.n))
