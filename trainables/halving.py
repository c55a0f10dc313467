"""Successive halving: only the better members of a cohort train on after each rung (Jamieson and Talwalkar 2016)."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np


@dataclass(frozen=True)
class Halving:
    """The rule of halving: after each rung, only the best 1/factor of the members train on.

    metric, mode: rank the members, by the metric's value after the rung's epoch.
    """

    metric: str
    mode: Literal["min", "max"]
    factor: int

    def rungs(self, members: int, epochs: int) -> dict[int, int]:
        """The number of members that train on after each rung, by the rung's epoch.

        The last rung is at epochs / factor, the one before at epochs / factor^2, and so on, rounded down. There are as
        many rungs as the members and the epochs allow.
        """
        rungs, kept, epoch = [], members, epochs
        while kept >= self.factor and epoch >= self.factor:
            kept, epoch = kept // self.factor, epoch // self.factor
            rungs.append((kept, epoch))
        counts, ends = [kept for kept, _ in rungs], sorted(epoch for _, epoch in rungs)
        return dict(zip(ends, counts, strict=True))

    def best(self, values: np.ndarray, count: int) -> list[int]:
        """The positions of the `count` best values, in ascending order.

        Values that are not finite are the worst. Of equal values, the first is the best.
        """
        worst = math.inf if self.mode == "min" else -math.inf
        filled = np.where(np.isfinite(values), values, worst)
        ranked = np.argsort(filled if self.mode == "min" else -filled, kind="stable")
        return sorted(ranked[:count].tolist())
