"""The linear decoder of Silent Gradients (SG section 3.1 and C.2.1)."""

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from trainables.components import Name, registered
from trainables.models.base import DECODERS, Decoder, ImageShape

LINEAR_OUTPUTS = ("mu", "alpha")
"""The names of the layers of `Linear`, in the order of its outputs."""


class Linear(nn.Module):
    """mean = W_mu z + b_mu and, with two outputs, precision alpha = W_alpha z + b_alpha; z [N, F] -> [N, outputs, D].

    The bias replaces the latent of SG C.2.1 that is fixed at 1. The paper gives no initialization. Here the initial
    precision is 1 for every code. PyTorch's initialization gives precisions around 0, where log alpha^2 is steep and
    the second-order expansion of its expectation is poor (docs/decisions.md has the comparison).
    """

    def __init__(self, features: int, pixels: int, outputs: int):
        super().__init__()
        self.mu = nn.Linear(features, pixels)
        self.alpha = nn.Linear(features, pixels) if outputs == 2 else None
        if self.alpha is not None:
            nn.init.zeros_(self.alpha.weight)
            nn.init.ones_(self.alpha.bias)

    def forward(self, z: Tensor) -> Tensor:
        rows = [self.mu(z)] if self.alpha is None else [self.mu(z), self.alpha(z)]
        return torch.stack(rows, dim=1)


@registered(DECODERS)
class LinearDecoder(Decoder):
    """A linear layer from the code to each pixel's mean, and one to its precision if the likelihood has one."""

    name: Name = "linear"
    linear: ClassVar[bool] = True

    def build(self, features: int, image_shape: ImageShape, outputs: int) -> nn.Module:
        return Linear(features, math.prod(image_shape), outputs)
