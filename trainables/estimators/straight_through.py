"""Straight-through estimators without noise in the backward pass: the plain and the gapped estimator."""

from typing import ClassVar

import torch
from torch import Tensor

from trainables.components import Name, NonNegativeKnob, PositiveKnob, registered
from trainables.estimators.base import ESTIMATORS, Estimator, Knobs, Loss, straight_through, tempered
from trainables.latents import Bernoulli, Categorical, Latent


@registered(ESTIMATORS)
class StraightThrough(Estimator):
    """Uses a hard draw of q forward, the gradient of the probabilities backward. Unbiased only for linear losses."""

    name: Name = "straight_through"
    bias = "biased"
    source: ClassVar[str] = "Bengio et al. 2013; DST eq. 3-5"

    def __call__(self, loss: Loss, q: Latent, noise: Tensor, knobs: Knobs = {}) -> Tensor:
        assert isinstance(q, Bernoulli | Categorical)  # by `families`
        return loss(straight_through(q.sample(noise), q.probs))


@registered(ESTIMATORS)
class GappedStraightThrough(Estimator):
    """Uses a hard draw z of q forward, and backward softmax at logits that are shifted to agree with z.

    Constants are added to the logits so that the drawn category is at least `gap` above all others. The result is
    divided by the temperature. These shifts replace the noise of Gumbel-Softmax.
    """

    name: Name = "gst"
    temperature: PositiveKnob = 1.0
    gap: NonNegativeKnob = 1.0
    bias = "biased"
    source: ClassVar[str] = "Fan et al. 2022"

    def __call__(self, loss: Loss, q: Latent, noise: Tensor, knobs: Knobs = {}) -> Tensor:
        assert isinstance(q, Bernoulli | Categorical)  # by `families`
        hard = q.sample(noise)
        shift = (_gapped(q, hard, self.knob("gap", knobs)) - q.logits).detach()
        soft = tempered(type(q)(q.logits + shift), self.knob("temperature", knobs)).probs
        return loss(straight_through(hard, soft))


def _gapped(q: Bernoulli | Categorical, z: Tensor, gap: Tensor) -> Tensor:
    """Logits close to q's, at which z is at least `gap` above all other values."""
    if isinstance(q, Bernoulli):
        sign = 2 * z - 1
        return sign * (sign * q.logits).clamp(min=gap)
    top = q.logits.amax(-1, keepdim=True)
    return torch.where(z > 0, top, torch.minimum(q.logits, top - gap))
