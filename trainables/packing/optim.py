"""Flat parameters and optimizer moments of a stack of members, and the one update that all optimizers share.

Shapes. M members, m of one stack, P parameters of a group. `trainables.optimizers` has the formulas and their numbers.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from trainables.optimizers import Coefficients


class Weights(NamedTuple):
    """Parameters of some members and their moments, each [m, P]."""

    parameters: Tensor
    mean: Tensor
    square: Tensor

    def update(self, gradient: Tensor, c: Coefficients) -> None:
        """One optimizer step, in place; overwrites gradient [m, P]."""
        parameters, mean, square = self
        gradient.addcmul_(parameters, c.decay_in_gradient)
        mean.lerp_(gradient, c.weight1)
        square.lerp_(gradient.square_(), c.weight2)
        denominator = torch.addcmul(c.epsilon, square.sqrt(), c.root)
        parameters.mul_(c.keep).addcdiv_(mean * -c.rate, denominator)


class Layout(NamedTuple):
    """The place of each parameter in a flat tensor."""

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
        """Keeps the members at these positions [m], in this order, and drops all others."""
        self.flat, self.mean, self.square = self.flat[members], self.mean[members], self.square[members]

    def of(self, which: slice) -> Weights:
        """The weights of some members; views, not copies."""
        return Weights(self.flat[which], self.mean[which], self.square[which])
