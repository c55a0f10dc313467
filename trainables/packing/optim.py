"""Adam, AdamW and RAdam for a stack of members, each with its own learning rate, betas, epsilon and weight decay.

Shapes. M members, P parameters of a group, S steps.

The three differ only in a few numbers a step, so each step is the same few passes over memory for all of them:

    g <- g + decay_in_gradient * p
    m <- m + (1 - beta1) (g - m),  s <- s + (1 - beta2) (g^2 - s)
    p <- keep * p - rate * m / (root * sqrt(s) + epsilon)

Kingma & Ba 2015; Loshchilov & Hutter 2019; Liu et al. 2020; details (epsilon outside the root, RAdam's plain momentum
steps while its length is at most 5) as in `torch.optim`, against which they are tested.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

TRACTABLE = 5
"""RAdam adapts its rate once the length of the approximated moving average exceeds this (Liu et al. 2020)."""


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
        """Those of one of S steps; its number, int64 [1], is counted from 0."""
        return Coefficients(*(rows.index_select(0, step)[0] for rows in self))


def coefficients(
    name: str, knobs: Mapping[str, Tensor], steps: range, *, dtype: torch.dtype, frozen: Tensor | None = None
) -> Coefficients:
    """The coefficients of some steps, each [S, M, 1].

    Args:
        name: adam, adamw or radam.
        knobs: lr, beta1, beta2, eps, weight_decay, each [M] float64: 1 - beta and RAdam's length cancel in float32.
        steps: counted from 1.
        dtype: of the parameters.
        frozen: [M] bool; members whose parameters must not move.
    """
    lr, beta1, beta2, eps, decay = (knobs[k] for k in ("lr", "beta1", "beta2", "eps", "weight_decay"))
    step = torch.tensor(steps, dtype=lr.dtype, device=lr.device)[:, None]
    rate, correction2 = lr / (1 - beta1**step), 1 - beta2**step
    if name == "radam":
        limit = 2 / (1 - beta2) - 1
        length = limit - 2 * step * (1 - correction2) / correction2
        adapts = length > TRACTABLE
        rectification = ((length - 4) * (length - 2) * limit / ((limit - 4) * (limit - 2) * length)).sqrt()
        rate = torch.where(adapts, rate * rectification * correction2.sqrt(), rate)
        root, epsilon = adapts.to(lr.dtype), torch.where(adapts, eps, 1.0)
    else:
        root, epsilon = correction2.rsqrt(), eps
    decoupled = name == "adamw"
    keep = 1 - lr * decay if decoupled else torch.ones_like(lr)
    if frozen is not None:
        rate, keep = rate.masked_fill(frozen, 0.0), keep.masked_fill(frozen, 1.0)
    rows = Coefficients(
        decay_in_gradient=torch.zeros_like(decay) if decoupled else decay,
        weight1=1 - beta1,
        weight2=1 - beta2,
        keep=keep,
        rate=rate,
        root=root,
        epsilon=epsilon,
    )
    return Coefficients(*(row.expand_as(rate)[..., None].to(dtype).contiguous() for row in rows))


class Weights(NamedTuple):
    """Parameters of some members and their moments, each [m, P]."""

    parameters: Tensor
    mean: Tensor
    square: Tensor

    def update(self, gradient: Tensor, c: Coefficients) -> None:
        """One step, in place; gradient [m, P] is used up."""
        parameters, mean, square = self
        gradient.addcmul_(parameters, c.decay_in_gradient)
        mean.lerp_(gradient, c.weight1)
        square.lerp_(gradient.square_(), c.weight2)
        denominator = torch.addcmul(c.epsilon, square.sqrt(), c.root)
        parameters.mul_(c.keep).addcdiv_(mean * -c.rate, denominator)


class Layout(NamedTuple):
    """Which parameters lie where in a flat tensor."""

    names: list[str]
    shapes: list[torch.Size]

    def named(self, flat: Tensor) -> dict[str, Tensor]:
        """Views of flat [m, P] by name, each [m, *shape]."""
        pieces = flat.split([shape.numel() for shape in self.shapes], dim=1)
        return {
            name: piece.unflatten(1, shape) if shape else piece[:, 0]
            for name, shape, piece in zip(self.names, self.shapes, pieces, strict=True)
        }


class Group:
    """One optimizer's parameters for all members, flat [M, P], with their moments.

    Args:
        stacked: parameters by name, each [M, *shape].
    """

    def __init__(self, stacked: dict[str, Tensor]):
        self.layout = Layout(list(stacked), [value.shape[1:] for value in stacked.values()])
        self.flat = torch.cat([value.reshape(len(value), -1) for value in stacked.values()], dim=1)
        self.mean, self.square = torch.zeros_like(self.flat), torch.zeros_like(self.flat)

    def named(self) -> dict[str, Tensor]:
        """Views of the parameters by name, each [M, *shape]."""
        return self.layout.named(self.flat)

    def keep(self, members: Tensor) -> None:
        """Drops all members but those at these positions [m]."""
        self.flat, self.mean, self.square = self.flat[members], self.mean[members], self.square[members]

    def of(self, which: slice) -> Weights:
        """The weights of some members; views, not copies."""
        return Weights(self.flat[which], self.mean[which], self.square[which])
