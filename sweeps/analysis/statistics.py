"""Statistics over a few seeds: confidence intervals, paired tests, and the correction for several tests.

Members of one seed share initial weights, order of images and noise, so configurations are compared seed by seed.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

from sweeps.analysis.metrics import Mode

CONFIDENCE = 0.95
LEVEL = 0.05
"""The significance level, after correction."""
ENOUGH = 5
"""Pairs that a test needs. With fewer, the p value of Wilcoxon's signed-rank test is never below the level."""
POWER = 0.8
"""The probability with which a test is to find the difference looked for, where the number of seeds is advised."""
MANY = 10_000
"""More seeds than anybody trains."""


@dataclass(frozen=True)
class Mean:
    """A mean over n seeds, its standard error, and its t interval; error and interval are NaN for one seed."""

    n: int
    value: float
    stderr: float
    low: float
    high: float


def mean(values: Sequence[float]) -> Mean:
    """The mean of one or more numbers, with its standard error and interval."""
    n, value = len(values), statistics.fmean(values)
    if n < 2:
        return Mean(n, value, math.nan, math.nan, math.nan)
    stderr = statistics.stdev(values) / math.sqrt(n)
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)) * stderr
    return Mean(n, value, stderr, value - half, value + half)


@dataclass(frozen=True)
class Paired:
    """How much better one configuration is than another, over the seeds that both have.

    gain: mean and interval of the paired differences, positive where the first is better.
    differences: one for each seed.
    """

    gain: Mean
    differences: tuple[float, ...]

    @property
    def enough(self) -> bool:
        return self.gain.n >= ENOUGH

    @property
    def t_p(self) -> float:
        """The p value of the one-sided paired t-test that the first is better; NaN with fewer than two pairs."""
        return self.p_above(0)

    @cached_property
    def wilcoxon_p(self) -> float:
        """The one-sided p value of Wilcoxon's signed-rank test; NaN with fewer than two pairs."""
        if self.gain.n < 2:
            return math.nan
        if self._equal:
            return 0.5**self.gain.n if self.gain.value > 0 else 1.0
        signed_rank: Any = stats.wilcoxon(self.differences, alternative="greater")  # typed as a tuple of two objects
        return float(signed_rank.pvalue)

    def p_above(self, bound: float) -> float:
        """The p value of the one-sided t-test that the mean difference is above a bound; NaN with fewer than two."""
        if self.gain.n < 2:
            return math.nan
        if self._equal:
            return 0.0 if self.gain.value > bound else 1.0
        return float(stats.t.sf((self.gain.value - bound) / self.gain.stderr, self.gain.n - 1))

    def p_below(self, bound: float) -> float:
        """The p value of the one-sided t-test that the mean difference is below a bound; NaN with fewer than two."""
        return Paired(_negative(self.gain), tuple(-each for each in self.differences)).p_above(-bound)

    def p_within(self, margin: float) -> float:
        """The p value of two one-sided t-tests that the mean difference is within ± margin (Schuirmann 1987)."""
        return max(self.p_above(-margin), self.p_below(margin))

    def seeds_needed(self, difference: float) -> int | None:
        """The pairs that a paired t-test needs to find a difference with power `POWER`, at the spread observed here.

        At least `ENOUGH`. None where this is unknown (fewer than two pairs, no difference) or more than `MANY`.
        """
        if self.gain.n < 2 or not difference:
            return None
        spread = self.gain.stderr * math.sqrt(self.gain.n)
        if self._equal or TTestPower().power(abs(difference) / spread, ENOUGH, LEVEL, alternative="larger") >= POWER:
            return ENOUGH
        if TTestPower().power(abs(difference) / spread, MANY, LEVEL, alternative="larger") < POWER:
            return None
        effect = abs(difference) / spread
        found: Any = TTestPower().solve_power(effect, alpha=LEVEL, power=POWER, alternative="larger")
        return math.ceil(float(found))

    @cached_property
    def _equal(self) -> bool:
        """Whether the differences are equal but for rounding: the test statistics would divide by zero."""
        return bool(np.ptp(self.differences) <= 1e-12 * np.abs(self.differences).max())


def _negative(gain: Mean) -> Mean:
    return Mean(gain.n, -gain.value, gain.stderr, -gain.high, -gain.low)


def paired(first: Mapping[int, float], second: Mapping[int, float], mode: Mode) -> Paired | None:
    """Compares a metric of two configurations, given by seed; None if they have no seed in common."""
    seeds = sorted(first.keys() & second.keys())
    if not seeds:
        return None
    sign = 1 if mode == "max" else -1
    differences = tuple(sign * (first[seed] - second[seed]) for seed in seeds)
    return Paired(mean(differences), differences)


def holm(p_values: Sequence[float]) -> list[float]:
    """P values corrected for their number (Holm 1979): compare each one with the level as if it were alone."""
    if len(p_values) < 2:  # nothing to correct; statsmodels takes a thousand times as long
        return list(p_values)
    return np.asarray(multipletests(p_values, method="holm")[1]).tolist()
