"""ReinMax: a second-order straight-through estimator, and its decoupled form.

Liu, Dong, Liu, Yu & Gao, "Bridging discrete and backpropagation: straight-through and beyond" (2023), Algorithm 2.
Straight-through integrates the derivative of the loss between two codes by Euler's rule; ReinMax by Heun's, which is
exact for quadratic losses.
"""

from typing import Annotated, ClassVar, Literal

from torch import Tensor

from trainables.components import SHAPE, PositiveKnob, registered
from trainables.estimators.base import ESTIMATORS, Estimator, Knobs, Loss, straight_through, tempered
from trainables.estimators.decoupled import Decoupled
from trainables.latents import Bernoulli, Categorical, Latent


@registered(ESTIMATORS)
class ReinMax(Estimator):
    """A hard draw z of p = softmax(l) forward; backward 2 d softmax at (z + softmax(l / temperature)) / 2 - d p / 2.

    Unbiased for quadratic losses at temperature 1. Larger temperatures, which the paper prefers, trade bias for
    variance.
    """

    name: Annotated[Literal["reinmax"], SHAPE] = "reinmax"
    temperature: PositiveKnob = 1.0
    bias: ClassVar[Literal["biased"]] = "biased"
    source: ClassVar[str] = "Liu et al. 2023"

    def __call__(self, loss: Loss, q: Latent, noise: Tensor, knobs: Knobs = {}) -> Tensor:
        return _heun(loss, q, tempered(q, self.knob("temperature", knobs)), noise)


@registered(ESTIMATORS)
class DecoupledReinMax(Decoupled):
    """ReinMax of the distribution softmax(l / temperature_forward), its middle point at temperature_backward.

    Forward a hard draw z of p = softmax(l / temperature_forward); backward, with respect to l / temperature_forward,
    2 d softmax at (z + softmax(l / temperature_backward)) / 2 - d p / 2. So temperature_forward = 1 gives `reinmax` at
    temperature_backward, and equal temperatures are unbiased for quadratic losses.
    """

    name: Annotated[Literal["decoupled_reinmax"], SHAPE] = "decoupled_reinmax"
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
    """A tensor whose gradient in q's logits is that of `q.probs` where these are `probs`; its value means nothing."""
    probs = probs.detach()
    if isinstance(q, Bernoulli):
        return probs * (1 - probs) * q.logits
    return probs * (q.logits - (probs * q.logits).sum(-1, keepdim=True))
