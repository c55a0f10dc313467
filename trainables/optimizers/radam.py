"""RAdam: Adam with a rectified learning rate (Liu et al. 2020)."""

import torch
from torch import Tensor

from trainables.components import Name, registered
from trainables.optimizers.adam import Adam
from trainables.optimizers.base import OPTIMIZERS, Coefficients, Knobs

TRACTABLE = 5
"""The rate becomes adaptive once the approximated moving average is longer than this (Liu et al. 2020)."""


@registered(OPTIMIZERS)
class RAdam(Adam):
    """Rectified Adam: plain momentum in the first steps; weight decay is added to the gradient."""

    name: Name = "radam"

    def rows(self, knobs: Knobs, step: Tensor) -> Coefficients:
        adam, beta2 = super().rows(knobs, step), knobs["beta2"]
        correction2 = 1 - beta2**step
        limit = 2 / (1 - beta2) - 1
        length = limit - 2 * step * (1 - correction2) / correction2
        adapts = length > TRACTABLE
        rectification = ((length - 4) * (length - 2) * limit / ((limit - 4) * (limit - 2) * length)).sqrt()
        return adam._replace(
            rate=torch.where(adapts, adam.rate * rectification * correction2.sqrt(), adam.rate),
            root=adapts.to(beta2.dtype),
            epsilon=torch.where(adapts, adam.epsilon, 1.0),
        )
