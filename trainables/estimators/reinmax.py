"""ReinMax: a second-order straight-through estimator, and its decoupled form.

Liu, Dong, Liu, Yu & Gao, "Bridging discrete and backpropagation: straight-through and beyond" (2023), Algorithm 2.
Straight-through integrates the derivative of the loss between two codes with Euler's rule; ReinMax uses Heun's rule,
which is exact for quadratic losses.
"""

from typing import ClassVar

from torch import Tensor

from trainables.components import Name, PositiveKnob, registered
from trainables.estimators.base import ESTIMATORS, Estimator, Knobs, Loss, straight_through, tempered
from trainables.estimators.decoupled import Decoupled
from trainables.latents import Bernoulli, Categorical, Latent


@registered(ESTIMATORS)
class ReinMax(Estimator):
    """Draws a hard code z of p = softmax(l) forward.

    The backward pass uses 2 d softmax at (z + softmax(l / temperature)) / 2 - d p / 2. It is unbiased for quadratic
    losses at temperature 1. Larger temperatures, which the paper prefers, lower the variance and raise the bias.
    """

    name: Name = "reinmax"
    temperature: PositiveKnob = 1.0
    bias = "biased"
    source: ClassVar[str] = "Liu et al. 2023"

    def __call__(self, loss: Loss, q: Latent, noise: Tensor, knobs: Knobs = {}) -> Tensor:
        return _heun(loss, q, tempered(q, self.knob("temperature", knobs)), noise)


@registered(ESTIMATORS)
class DecoupledReinMax(Decoupled):
    """ReinMax for the distribution softmax(l / temperature_forward), with the midpoint at temperature_backward.

    Forward: a hard draw z of p = softmax(l / temperature_forward). Backward, with respect to l / temperature_forward:
    2 d softmax at (z + softmax(l / temperature_backward)) / 2 - d p / 2. With temperature_forward = 1 it is `reinmax`
    at temperature_backward; with equal temperatures it is unbiased for quadratic losses.
    """

    name: Name = "decoupled_reinmax"
    source: ClassVar[str] = "this project's: DST and Liu et al. 2023"

    def __call__(self, loss: Loss, q: Latent, noise: Tensor, knobs: Knobs = {}) -> Tensor:
        return _heun(loss, self.sampled(q, knobs), tempered(q, self.knob("temperature_backward", knobs)), noise)


def _heun(loss: Loss, q: Latent, softened: Latent, noise: Tensor) -> Tensor:
    assert isinstance(q, Bernoulli | Categorical)  # by `families`
    assert isinstance(softened, Bernoulli | Categorical)
    hard = q.sample(noise)
    middle = 0.5 * (hard + softened.probs)
    return loss(straight_through(hard, 2 * _as_probabilities(q, middle) - 0.5 * q.probs))


def _as_probabilities(q: Bernoulli | Categorical, probs: Tensor) -> Tensor:
    """A tensor with the gradient, in q's logits, that `q.probs` would have at the value `probs`; only for gradients."""
    probs = probs.detach()
    if isinstance(q, Bernoulli):
        return probs * (1 - probs) * q.logits
    return probs * (q.logits - (probs * q.logits).sum(-1, keepdim=True))
