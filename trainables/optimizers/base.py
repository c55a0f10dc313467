"""The contract of optimizers: each gives a few numbers per step for one update that all of them share.

Shapes. M members, P parameters of a group, S steps.

With a gradient g [M, P], parameters p and moments m and s, every optimizer does

    g <- g + decay_in_gradient * p
    m <- m + weight1 (g - m),  s <- s + weight2 (g^2 - s)
    p <- keep * p - rate * m / (root * sqrt(s) + epsilon)

and differs only in these numbers. So each step is the same few passes over memory (`packing.optim.Weights.update`), and
every member has its own numbers.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from trainables.components import Component, FractionKnob, NonNegativeKnob, PositiveKnob
from trainables.registry import Registry

OPTIMIZERS: Registry["Optimizer"] = Registry("optimizer")
Knobs = Mapping[str, Tensor]


class Coefficients(NamedTuple):
    """The numbers of one step, each [M, 1], or of S steps, each [S, M, 1] (see the module's formulas)."""

    decay_in_gradient: Tensor
    weight1: Tensor
    weight2: Tensor
    keep: Tensor
    rate: Tensor
    root: Tensor
    epsilon: Tensor

    def at(self, step: Tensor) -> "Coefficients":
        """The numbers [M, 1] of one of S steps; its index, int64 [1], is counted from 0."""
        return Coefficients(*(rows.index_select(0, step)[0] for rows in self))


class Optimizer(Component):
    """An optimizer of the Adam family, with the arguments and defaults of `torch.optim`."""

    lr: PositiveKnob = Field(default=1e-3, title="learning rate")
    beta1: FractionKnob = 0.9
    beta2: FractionKnob = 0.999
    eps: PositiveKnob = 1e-8
    weight_decay: NonNegativeKnob = 0.0

    def rows(self, knobs: Knobs, step: Tensor) -> Coefficients:
        """The coefficients of some steps, each broadcastable to [S, M].

        Args:
            knobs: the optimizer's fields, each [M] float64, since 1 - beta would lose digits in float32.
            step: the numbers of the steps, float64 [S, 1], counted from 1.
        """
        raise NotImplementedError

    def coefficients(
        self, knobs: Knobs, steps: range, *, dtype: torch.dtype, frozen: Tensor | None = None
    ) -> Coefficients:
        """The coefficients of some steps, each [S, M, 1].

        Args:
            knobs: as for `rows`.
            steps: the numbers of the steps, counted from 1.
            dtype: of the coefficients, the same as of the parameters.
            frozen: bool [M]; members whose parameters must not change.
        """
        lr = knobs["lr"]
        rows = self.rows(knobs, torch.tensor(steps, dtype=lr.dtype, device=lr.device)[:, None])
        if frozen is not None:
            rows = rows._replace(rate=rows.rate.masked_fill(frozen, 0.0), keep=rows.keep.masked_fill(frozen, 1.0))
        shape = (len(steps), len(lr))
        return Coefficients(*(row.expand(shape)[..., None].to(dtype).contiguous() for row in rows))
