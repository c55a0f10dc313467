"""Straight-through estimators without noise in the backward pass: the plain one, and the gapped one."""

from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor

from trainables.components import SHAPE, NonNegativeKnob, PositiveKnob, registered
from trainables.estimators.base import ESTIMATORS, Estimator, Knobs, Loss, straight_through, tempered
from trainables.latents import Bernoulli, Categorical, Latent


@registered(ESTIMATORS)
class StraightThrough(Estimator):
    """A hard draw of q forward; backward as if it were the probabilities. Unbiased for linear losses only."""

    name: Annotated[Literal["straight_through"], SHAPE] = "straight_through"
    bias: ClassVar[Literal["biased"]] = "biased"
    source: ClassVar[str] = "Bengio et al. 2013; DST eq. 3-5"

    def __call__(self, loss: Loss, q: Latent, noise: Tensor, knobs: Knobs = {}) -> Tensor:
        assert isinstance(q, Bernoulli | Categorical)  # by `families`
        return loss(straight_through(q.sample(noise), q.probs))


@registered(ESTIMATORS)
class GappedStraightThrough(Estimator):
    """A hard draw z of q forward; backward softmax at logits that were moved to agree with z.

    The logits are shifted, by constants, so that the drawn category is the largest and leads the others by at least
    `gap`; then divided by the temperature. This replaces the noise of Gumbel-Softmax by its effect.
    """

    name: Annotated[Literal["gst"], SHAPE] = "gst"
    temperature: PositiveKnob = 1.0
    gap: NonNegativeKnob = 1.0
    bias: ClassVar[Literal["biased"]] = "biased"
    source: ClassVar[str] = "Fan et al. 2022"

    def __call__(self, loss: Loss, q: Latent, noise: Tensor, knobs: Knobs = {}) -> Tensor:
        assert isinstance(q, Bernoulli | Categorical)  # by `families`
        hard = q.sample(noise)
        shift = (_gapped(q, hard, self.knob("gap", knobs)) - q.logits).detach()
        soft = tempered(type(q)(q.logits + shift), self.knob("temperature", knobs)).probs
        return loss(straight_through(hard, soft))


def _gapped(q: Bernoulli | Categorical, z: Tensor, gap: Tensor) -> Tensor:
    """Logits at which z leads by at least `gap`; otherwise nearest to q's."""
    if isinstance(q, Bernoulli):
        sign = 2 * z - 1
        return sign * (sign * q.logits).clamp(min=gap)
    top = q.logits.amax(-1, keepdim=True)
    return torch.where(z > 0, top, torch.minimum(q.logits, top - gap))
