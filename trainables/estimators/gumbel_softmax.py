"""Relaxations by Gumbel noise: Gumbel-Softmax, its straight-through form, and the decoupled straight-through form.

Logits l [B, L, K] with Gumbel noise g; for bits l [B, L] with logistic noise, sigmoid in place of softmax.
"""

from typing import Annotated, ClassVar, Literal, TypeVar

from torch import Tensor

from trainables.components import SHAPE, PositiveKnob, registered
from trainables.estimators.base import ESTIMATORS, Estimator, Knobs, Loss, relaxed, straight_through, tempered
from trainables.latents import Latent

Q = TypeVar("Q", bound=Latent)


@registered(ESTIMATORS)
class GumbelSoftmax(Estimator):
    """Relaxed codes, forward and backward: biased for the discrete objective.

    `scaling` says what the temperature divides: "logits_and_noise", softmax((l + g) / t) as Jang et al. 2017, whose
    hard sample is of softmax(l) at any temperature; or "logits", softmax(l / t + g) as in DST, whose hard sample is of
    softmax(l / t).
    """

    name: Annotated[Literal["gumbel_softmax"], SHAPE] = "gumbel_softmax"
    temperature: PositiveKnob = 1.0
    scaling: Annotated[Literal["logits_and_noise", "logits"], SHAPE] = "logits_and_noise"
    bias: ClassVar[Literal["biased"]] = "biased"
    source: ClassVar[str] = "Jang et al. 2017; Maddison et al. 2017; DST eq. 6"

    def sampled(self, q: Q, knobs: Knobs) -> Q:
        return q if self.scaling == "logits_and_noise" else tempered(q, self.knob("temperature", knobs))

    def __call__(self, loss: Loss, q: Latent, noise: Tensor, knobs: Knobs = {}) -> Tensor:
        temperature = self.knob("temperature", knobs)
        if self.scaling == "logits_and_noise":
            noise = noise / temperature
        return loss(relaxed(tempered(q, temperature), noise))


@registered(ESTIMATORS)
class DecoupledSTGS(Estimator):
    """Hard codes at one temperature, gradients of the relaxation at another, with the same noise.

    Forward one_hot(argmax(l / temperature_forward + g)), a draw of softmax(l / temperature_forward); backward the
    gradient of softmax(l / temperature_backward + g).
    """

    name: Annotated[Literal["decoupled_st_gs"], SHAPE] = "decoupled_st_gs"
    temperature_forward: PositiveKnob = 1.0
    temperature_backward: PositiveKnob = 1.0
    bias: ClassVar[Literal["biased"]] = "biased"
    source: ClassVar[str] = "DST eq. 12-16"

    def sampled(self, q: Q, knobs: Knobs) -> Q:
        return tempered(q, self.knob("temperature_forward", knobs))

    def __call__(self, loss: Loss, q: Latent, noise: Tensor, knobs: Knobs = {}) -> Tensor:
        hard = self.sampled(q, knobs).sample(noise)
        soft = relaxed(tempered(q, self.knob("temperature_backward", knobs)), noise)
        return loss(straight_through(hard, soft))


@registered(ESTIMATORS)
class STGumbelSoftmax(Estimator):
    """Straight-through Gumbel-Softmax: `decoupled_st_gs` with one temperature (DST eq. 8-11)."""

    name: Annotated[Literal["st_gumbel_softmax"], SHAPE] = "st_gumbel_softmax"
    temperature: PositiveKnob = 1.0
    bias: ClassVar[Literal["biased"]] = "biased"
    source: ClassVar[str] = "Jang et al. 2017; DST eq. 8-11"

    def sampled(self, q: Q, knobs: Knobs) -> Q:
        return tempered(q, self.knob("temperature", knobs))

    def __call__(self, loss: Loss, q: Latent, noise: Tensor, knobs: Knobs = {}) -> Tensor:
        own = self.sampled(q, knobs)
        return loss(straight_through(own.sample(noise), relaxed(own, noise)))
