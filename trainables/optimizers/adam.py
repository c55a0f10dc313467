"""Adam (Kingma and Ba 2015); epsilon is added outside the root, as in `torch.optim`."""

import torch
from torch import Tensor

from trainables.components import Name, registered
from trainables.optimizers.base import OPTIMIZERS, Coefficients, Knobs, Optimizer


@registered(OPTIMIZERS)
class Adam(Optimizer):
    """Adam; weight decay is added to the gradient."""

    name: Name = "adam"

    def rows(self, knobs: Knobs, step: Tensor) -> Coefficients:
        lr, beta1, beta2 = knobs["lr"], knobs["beta1"], knobs["beta2"]
        return Coefficients(
            decay_in_gradient=knobs["weight_decay"],
            weight1=1 - beta1,
            weight2=1 - beta2,
            keep=torch.ones_like(lr),
            rate=lr / (1 - beta1**step),
            root=(1 - beta2**step).rsqrt(),
            epsilon=knobs["eps"],
        )
