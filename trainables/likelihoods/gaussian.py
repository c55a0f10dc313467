"""Gaussian likelihoods: a fixed variance, a learned log-scale or a learned precision (SG eq. 2, 4.1, Figure 1)."""

import math
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor

from trainables.analytic import expected_log_likelihood
from trainables.components import SHAPE, Name, PositiveKnob, registered
from trainables.latents import Latent, Latents
from trainables.likelihoods.base import LIKELIHOODS, Affine, Knobs, Likelihood


@registered(LIKELIHOODS)
class GaussianFixed(Likelihood):
    """N(mean, variance) with one fixed variance for every pixel (SG eq. 2)."""

    name: Name = "gaussian_fixed"
    variance: PositiveKnob = 0.01
    outputs: ClassVar[int] = 1
    analytic: ClassVar[bool] = True

    def log_prob(self, x: Tensor, output: Tensor, knobs: Knobs) -> Tensor:
        variance = self.knob("variance", knobs)
        squared = (x - output[..., 0, :]).square().sum(-1)
        return -0.5 * squared / variance - 0.5 * x.shape[-1] * torch.log(2 * math.pi * variance)

    def expected_log_prob(self, x: Tensor, q: Latent, decoder: Sequence[Affine], knobs: Knobs) -> Tensor:
        [mean] = decoder
        return expected_log_likelihood(x, q, mean.weight, mean.bias, variance=self.knob("variance", knobs))


@registered(LIKELIHOODS)
class GaussianLogScale(Likelihood):
    """N(mean, exp(2 log_scale)); the decoder gives both, as the nonlinear decoder of SG Figure 1."""

    name: Name = "gaussian_log_scale"
    outputs: ClassVar[int] = 2

    def log_prob(self, x: Tensor, output: Tensor, knobs: Knobs) -> Tensor:
        log_scale = output[..., 1, :]
        standardized = (x - output[..., 0, :]) * (-log_scale).exp()
        return (-0.5 * standardized.square() - log_scale - 0.5 * math.log(2 * math.pi)).sum(-1)

    def deviation(self, output: Tensor) -> Tensor:
        return output[..., 1, :].exp()


@registered(LIKELIHOODS)
class GaussianPrecision(Likelihood):
    """N(mean, 1 / alpha^2); the decoder gives both (SG section 4.1). Its expectation is analytic for linear decoders.

    log_term: the formula for E[log alpha^2]; see `analytic.expected_log_likelihood`.
    """

    name: Name = "gaussian_precision"
    log_term: Annotated[Literal["taylor", "exact"], SHAPE] = "taylor"
    outputs: ClassVar[int] = 2
    analytic: ClassVar[bool] = True
    alternative: ClassVar[str | None] = "gaussian_log_scale"

    def log_prob(self, x: Tensor, output: Tensor, knobs: Knobs) -> Tensor:
        mean, alpha = output[..., 0, :], output[..., 1, :]
        squared = ((x - mean) * alpha).square()
        # log alpha^2, not log alpha: the sign of alpha has no meaning.
        return 0.5 * (alpha.square().log() - squared - math.log(2 * math.pi)).sum(-1)

    def deviation(self, output: Tensor) -> Tensor:
        return 1 / output[..., 1, :].abs()

    def expected_log_prob(self, x: Tensor, q: Latent, decoder: Sequence[Affine], knobs: Knobs) -> Tensor:
        mean, alpha = decoder
        return expected_log_likelihood(
            x, q, mean.weight, mean.bias, weight_alpha=alpha.weight, bias_alpha=alpha.bias, log_term=self.log_term
        )

    def check_expectation(self, latent: Latents) -> None:
        if self.log_term == "exact" and latent.family != "gaussian":
            raise ValueError(f"log_term 'exact' needs gaussian latents, got {latent.family!r}; use 'taylor'")
