"""Likelihoods p(x|z): what a decoder's output means.

Shapes. B images, D pixels; leading sizes (samples) are allowed before B. A decoder gives `outputs` numbers a pixel:
output [..., B, outputs, D]. Everything is in nats.
"""

import math
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import SerializeAsAny
from torch import Tensor
from torch.nn import functional as F

from trainables.components import SHAPE, Component, PositiveKnob, chosen_from, registered
from trainables.registry import Registry

LIKELIHOODS: Registry["Likelihood"] = Registry("likelihood")
Knobs = Mapping[str, Tensor]


class Likelihood(Component):
    """A distribution over pixels given a decoder's output."""

    outputs: ClassVar[int]
    binary: ClassVar[bool] = False
    """Whether pixels are probabilities or bits in [0, 1] rather than dequantized intensities."""

    def log_prob(self, x: Tensor, output: Tensor, knobs: Knobs) -> Tensor:
        """Log p(x|z) [..., B] of x [B, D]."""
        raise NotImplementedError

    def mean(self, output: Tensor) -> Tensor:
        """E[x|z] [..., B, D]."""
        return output[..., 0, :]

    def deviation(self, output: Tensor) -> Tensor | None:
        """The standard deviation [..., B, D] of each pixel given z; None where the decoder does not learn one."""
        return None


def _normal(residual: Tensor, log_scale: Tensor) -> Tensor:
    standardized = residual * (-log_scale).exp()
    return (-0.5 * standardized.square() - log_scale - 0.5 * math.log(2 * math.pi)).sum(-1)


@registered(LIKELIHOODS)
class GaussianFixed(Likelihood):
    """N(mean, variance) with one fixed variance for every pixel (SG eq. 2)."""

    name: Annotated[Literal["gaussian_fixed"], SHAPE] = "gaussian_fixed"
    variance: PositiveKnob = 0.01
    outputs: ClassVar[int] = 1

    def log_prob(self, x: Tensor, output: Tensor, knobs: Knobs) -> Tensor:
        variance = self.knob("variance", knobs)
        squared = (x - output[..., 0, :]).square().sum(-1)
        return -0.5 * squared / variance - 0.5 * x.shape[-1] * torch.log(2 * math.pi * variance)


@registered(LIKELIHOODS)
class GaussianLogScale(Likelihood):
    """N(mean, exp(2 log_scale)), both given by the decoder: the nonlinear decoder of SG Figure 1."""

    name: Annotated[Literal["gaussian_log_scale"], SHAPE] = "gaussian_log_scale"
    outputs: ClassVar[int] = 2

    def log_prob(self, x: Tensor, output: Tensor, knobs: Knobs) -> Tensor:
        return _normal(x - output[..., 0, :], output[..., 1, :])

    def deviation(self, output: Tensor) -> Tensor:
        return output[..., 1, :].exp()


@registered(LIKELIHOODS)
class GaussianPrecision(Likelihood):
    """N(mean, 1 / alpha^2), both given by the decoder (SG section 4.1): analytic if they are linear."""

    name: Annotated[Literal["gaussian_precision"], SHAPE] = "gaussian_precision"
    log_term: Annotated[Literal["taylor", "exact"], SHAPE] = "taylor"
    outputs: ClassVar[int] = 2

    def log_prob(self, x: Tensor, output: Tensor, knobs: Knobs) -> Tensor:
        mean, alpha = output[..., 0, :], output[..., 1, :]
        squared = ((x - mean) * alpha).square()
        # log alpha^2, not log alpha: the sign of alpha carries no meaning.
        return 0.5 * (alpha.square().log() - squared - math.log(2 * math.pi)).sum(-1)

    def deviation(self, output: Tensor) -> Tensor:
        return 1 / output[..., 1, :].abs()


@registered(LIKELIHOODS)
class BernoulliPixels(Likelihood):
    """Independent pixels with logits from the decoder; binary cross-entropy where pixels are grey (DVAE section 8)."""

    name: Annotated[Literal["bernoulli"], SHAPE] = "bernoulli"
    outputs: ClassVar[int] = 1
    binary: ClassVar[bool] = True

    def log_prob(self, x: Tensor, output: Tensor, knobs: Knobs) -> Tensor:
        logits = output[..., 0, :]
        return (x * logits - F.softplus(logits)).sum(-1)

    def mean(self, output: Tensor) -> Tensor:
        return output[..., 0, :].sigmoid()


LikelihoodField = Annotated[SerializeAsAny[Likelihood], chosen_from(LIKELIHOODS)]
