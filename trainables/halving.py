"""Successive halving: of members that train together, the better ones train on (Jamieson and Talwalkar 2016)."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np


@dataclass(frozen=True)
class Halving:
    """After each rung only the best 1/factor of the members train on, so that the last one has the whole training.

    metric, mode: by which they are ranked, as it is after the epoch of the rung.
    """

    metric: str
    mode: Literal["min", "max"]
    factor: int

    def rungs(self, members: int, epochs: int) -> dict[int, int]:
        """How many members train on after an epoch, by that epoch: the last rung at a factor-th of all epochs, the one
        before at a factor-th of that, and as many rungs as the members and the epochs allow."""
        rungs, kept, epoch = [], members, epochs
        while kept >= self.factor and epoch >= self.factor:
            kept, epoch = kept // self.factor, epoch // self.factor
            rungs.append((kept, epoch))
        counts, ends = [kept for kept, _ in rungs], sorted(epoch for _, epoch in rungs)
        return dict(zip(ends, counts, strict=True))

    def best(self, values: np.ndarray, count: int) -> list[int]:
        """The positions of the `count` best values, in their order; those that are not numbers are the worst, and of
        equal ones the first are the best."""
        worst = math.inf if self.mode == "min" else -math.inf
        filled = np.where(np.isfinite(values), values, worst)
        ranked = np.argsort(filled if self.mode == "min" else -filled, kind="stable")
        return sorted(ranked[:count].tolist())
