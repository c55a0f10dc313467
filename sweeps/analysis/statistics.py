"""Statistics over a few seeds: confidence intervals, paired tests, and the correction for several tests.

Members of one seed share initial weights, order of images and noise, so configurations are compared seed by seed.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from sweeps.analysis.metrics import Mode

CONFIDENCE = 0.95
LEVEL = 0.05
"""The significance level, after correction."""
ENOUGH = 5
"""Pairs that a test needs. With fewer, the p value of Wilcoxon's signed-rank test is never below the level."""


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
    t_p, wilcoxon_p: one-sided p values of the paired t-test and of Wilcoxon's signed-rank test; NaN with fewer than two
        pairs.
    """

    gain: Mean
    t_p: float
    wilcoxon_p: float

    @property
    def enough(self) -> bool:
        return self.gain.n >= ENOUGH


def paired(first: Mapping[int, float], second: Mapping[int, float], mode: Mode) -> Paired | None:
    """Compares a metric of two configurations, given by seed; None if they have no seed in common."""
    seeds = sorted(first.keys() & second.keys())
    if not seeds:
        return None
    sign = 1 if mode == "max" else -1
    gains = np.array([sign * (first[seed] - second[seed]) for seed in seeds])
    if len(seeds) < 2:
        return Paired(mean(gains.tolist()), math.nan, math.nan)
    if np.ptp(gains) <= 1e-12 * np.abs(gains).max():  # equal but for rounding: the test statistics would divide by 0
        p = 0.0 if gains[0] > 0 else 1.0
        return Paired(mean(gains.tolist()), p, p if gains[0] <= 0 else 0.5 ** len(gains))
    # Type checkers see scipy's results as tuples of two objects.
    t_test: Any = stats.ttest_1samp(gains, 0, alternative="greater")
    signed_rank: Any = stats.wilcoxon(gains, alternative="greater")
    return Paired(mean(gains.tolist()), float(t_test.pvalue), float(signed_rank.pvalue))


def holm(p_values: Sequence[float]) -> list[float]:
    """P values corrected for their number (Holm 1979): compare each one with the level as if it were alone."""
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted
