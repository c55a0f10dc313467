"""Decoupled straight-through Gumbel-Softmax: one temperature forward, another backward (DST)."""

from typing import ClassVar, TypeVar

import torch
from pydantic import Field
from torch import Tensor

from trainables.components import Name, OptionalPositiveKnob, PositiveKnob, registered
from trainables.estimators.base import ESTIMATORS, Estimator, Knobs, Loss, relaxed, straight_through, tempered
from trainables.latents import Latent

Q = TypeVar("Q", bound=Latent)


class Decoupled(Estimator):
    """The base of decoupled estimators: two temperatures, each constant or linear in the epoch (DST appendix B).

    temperature_forward: the hard code is drawn from softmax(l / temperature_forward).
    temperature_backward: the temperature of the relaxation that the gradient is computed with.
    temperature_forward_end, temperature_backward_end: the values in the last epoch; None for a constant temperature.
    """

    temperature_forward: PositiveKnob = Field(default=1.0, title="temperature (forward)")
    temperature_backward: PositiveKnob = Field(default=1.0, title="temperature (backward)")
    temperature_forward_end: OptionalPositiveKnob = Field(default=None, title="last temperature (forward)")
    temperature_backward_end: OptionalPositiveKnob = Field(default=None, title="last temperature (backward)")
    bias = "biased"

    def sampled(self, q: Q, knobs: Knobs) -> Q:
        return tempered(q, self.knob("temperature_forward", knobs))

    def scheduled(self, knobs: Knobs, progress: float) -> dict[str, Tensor]:
        return {
            name: _linear(self.knob(name, knobs), self.knob(f"{name}_end", knobs), progress)
            for name in ("temperature_forward", "temperature_backward")
        }


def _linear(start: Tensor, end: Tensor, progress: float) -> Tensor:
    """Interpolates from start to end; an infinite end stands for an absent one, and gives start."""
    return torch.lerp(start, torch.where(end.isinf(), start, end).to(start.dtype), progress)


@registered(ESTIMATORS)
class DecoupledSTGS(Decoupled):
    """Draws hard codes at one temperature, and differentiates the relaxation at another, with the same noise.

    Forward: one_hot(argmax(l / temperature_forward + g)).
    Backward: the gradient of softmax(l / temperature_backward + g).
    """

    name: Name = "decoupled_st_gs"
    source: ClassVar[str] = "DST eq. 12-16"

    def __call__(self, loss: Loss, q: Latent, noise: Tensor, knobs: Knobs = {}) -> Tensor:
        hard = self.sampled(q, knobs).sample(noise)
        soft = relaxed(tempered(q, self.knob("temperature_backward", knobs)), noise)
        return loss(straight_through(hard, soft))
