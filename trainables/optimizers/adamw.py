"""AdamW (Loshchilov and Hutter 2019)."""

import torch
from torch import Tensor

from trainables.components import Name, NonNegativeKnob, registered
from trainables.optimizers.adam import Adam
from trainables.optimizers.base import OPTIMIZERS, Coefficients, Knobs


@registered(OPTIMIZERS)
class AdamW(Adam):
    """Adam with decoupled weight decay: parameters shrink by lr * weight_decay in each step."""

    name: Name = "adamw"
    weight_decay: NonNegativeKnob = 1e-2

    def rows(self, knobs: Knobs, step: Tensor) -> Coefficients:
        decay = knobs["weight_decay"]
        return (
            super().rows(knobs, step)._replace(decay_in_gradient=torch.zeros_like(decay), keep=1 - knobs["lr"] * decay)
        )
