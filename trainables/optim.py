"""Adam, AdamW and RAdam for a stack of members, each with its own learning rate, betas, epsilon and weight decay.

Shapes. M members, P parameters of a group: everything is [M, P], hyperparameters are [M, 1]. The formulas and the order
of operations are those of `torch.optim` (Kingma & Ba 2015; Loshchilov & Hutter 2019; Liu et al. 2020), against which
they are tested.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Moments:
    """First and second moment estimates [M, P] of one parameter group."""

    mean: Tensor
    square: Tensor

    @classmethod
    def zeros_like(cls, parameters: Tensor) -> "Moments":
        return cls(torch.zeros_like(parameters), torch.zeros_like(parameters))

    def members(self, which: slice) -> "Moments":
        """A view of some members."""
        return Moments(self.mean[which], self.square[which])


def update(
    name: str,
    parameters: Tensor,
    gradient: Tensor,
    moments: Moments,
    knobs: Mapping[str, Tensor],
    step: int,
    frozen: Tensor | None = None,
) -> None:
    """One step in place.

    Args:
        name: adam, adamw or radam.
        parameters, gradient: [M, P].
        moments: updated in place.
        knobs: lr, beta1, beta2, eps, weight_decay, each [M, 1].
        step: counted from 1.
        frozen: [M, 1] bool; members whose parameters must not move.
    """
    lr, beta1, beta2, decay = knobs["lr"], knobs["beta1"], knobs["beta2"], knobs["weight_decay"]
    if name != "adamw":
        gradient = gradient + decay * parameters
    moments.mean.lerp_(gradient, 1 - beta1)
    moments.square.mul_(beta2).add_((1 - beta2) * gradient.square())
    correction1, correction2 = 1 - beta1**step, 1 - beta2**step
    root = moments.square.sqrt()
    if name == "radam":
        change = (lr / correction1) * moments.mean * _rectified(root, beta2, correction2, knobs["eps"], step)
    else:
        change = (lr / correction1) * moments.mean / (root / correction2.sqrt() + knobs["eps"])
    if name == "adamw":
        # p - lr*decay*p - change, as decoupled decay followed by the step.
        change = change + lr * decay * parameters
    if frozen is not None:
        change = change.masked_fill(frozen, 0.0)
    parameters.sub_(change)


def _rectified(root: Tensor, beta2: Tensor, correction2: Tensor, eps: Tensor, step: int) -> Tensor:
    """RAdam's adaptive factor: 1 while the variance of the adaptive rate is not tractable."""
    limit = 2 / (1 - beta2) - 1
    length = limit - 2 * step * (1 - correction2) / correction2
    tractable = length > 5
    safe = torch.where(tractable, length, torch.full_like(length, 6.0))
    rectification = ((safe - 4) * (safe - 2) * limit / ((limit - 4) * (limit - 2) * safe)).sqrt()
    return torch.where(tractable, rectification * correction2.sqrt() / (root + eps), torch.ones_like(root))
