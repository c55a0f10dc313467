"""Relaxations with Gumbel noise: Gumbel-Softmax and its straight-through form.

Categorical latents have logits l [B, L, K] and Gumbel noise g. Bits have logits l [B, L], logistic noise g, and sigmoid
instead of softmax.
"""

from typing import Annotated, ClassVar, Literal, TypeVar

from torch import Tensor

from trainables.components import SHAPE, Name, PositiveKnob, registered
from trainables.estimators.base import ESTIMATORS, Estimator, Knobs, Loss, relaxed, straight_through, tempered
from trainables.latents import Latent

Q = TypeVar("Q", bound=Latent)
Scaling = Annotated[Literal["logits_and_noise", "logits"], SHAPE]


class Relaxation(Estimator):
    """The base of relaxations: a temperature t, and its place in the formula.

    scaling: "logits_and_noise", softmax((l + g) / t) as in Jang et al. 2017, with hard samples from softmax(l) at every
        temperature; or "logits", softmax(l / t + g) as in DST, with hard samples from softmax(l / t).
    """

    temperature: PositiveKnob = 1.0
    scaling: Scaling = "logits_and_noise"
    bias = "biased"

    def sampled(self, q: Q, knobs: Knobs) -> Q:
        return q if self.scaling == "logits_and_noise" else tempered(q, self.knob("temperature", knobs))

    def relax(self, q: Latent, noise: Tensor, knobs: Knobs) -> Tensor:
        temperature = self.knob("temperature", knobs)
        return relaxed(tempered(q, temperature), noise / temperature if self.scaling == "logits_and_noise" else noise)


@registered(ESTIMATORS)
class GumbelSoftmax(Relaxation):
    """Uses relaxed codes forward and backward: an unbiased gradient, but of another objective, the relaxed model's."""

    name: Name = "gumbel_softmax"
    relaxes: ClassVar[bool] = True
    source: ClassVar[str] = "Jang et al. 2017; Maddison et al. 2017; DST eq. 6"

    def __call__(self, loss: Loss, q: Latent, noise: Tensor, knobs: Knobs = {}) -> Tensor:
        return loss(self.relax(q, noise, knobs))


@registered(ESTIMATORS)
class STGumbelSoftmax(Relaxation):
    """Straight-through Gumbel-Softmax: the hard code forward, the relaxed code of the same noise backward.

    With scaling "logits" (DST), it equals `decoupled_st_gs` with two equal temperatures.
    """

    name: Name = "st_gumbel_softmax"
    scaling: Scaling = "logits"
    source: ClassVar[str] = "Jang et al. 2017; DST eq. 8-11"

    def __call__(self, loss: Loss, q: Latent, noise: Tensor, knobs: Knobs = {}) -> Tensor:
        hard = self.sampled(q, knobs).sample(noise)
        return loss(straight_through(hard, self.relax(q, noise, knobs)))
