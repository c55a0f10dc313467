"""Score-function estimators: REINFORCE with two baselines (Williams 1992; SG C.3.2; DVAE eq. 72-81).

The score d log q(z) has mean zero, so a value that does not depend on z can be subtracted from the loss. Such a
baseline lowers the variance and adds no bias.
"""

from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor

from trainables.components import LARGEST, SHAPE, FractionKnob, Name, registered
from trainables.estimators.base import ESTIMATORS, Estimator, Knobs, Loss, gradient_only
from trainables.latents import FAMILIES, Latent


@registered(ESTIMATORS)
class Reinforce(Estimator):
    """(loss - baseline) * d log q(z); the baseline is a running average of the loss in previous steps (SG C.3.2)."""

    name: Name = "reinforce"
    baseline_momentum: FractionKnob = 0.9
    families: ClassVar[frozenset[str]] = FAMILIES
    bias = "unbiased"
    source: ClassVar[str] = "Williams 1992; SG C.3.2"
    uses_running_loss: ClassVar[bool] = True

    def running_loss_momentum(self, knobs: Knobs) -> Tensor:
        return self.knob("baseline_momentum", knobs)

    def __call__(self, loss: Loss, q: Latent, noise: Tensor, knobs: Knobs = {}) -> Tensor:
        z = q.sample(noise).detach()
        value = loss(z)
        baseline = knobs.get("running_loss", 0.0)
        return value + gradient_only(value - baseline, q.log_prob(z))


@registered(ESTIMATORS)
class RLOO(Estimator):
    """The mean over k draws of (loss - baseline) * d log q(z); the baseline is the mean loss of the other draws."""

    name: Name = "rloo"
    k: Annotated[int, Field(ge=2, le=LARGEST), SHAPE] = Field(default=4, title="draws")
    families: ClassVar[frozenset[str]] = FAMILIES
    bias = "unbiased"
    samples: ClassVar[str] = "k"
    cost: ClassVar[str] = "k decoder passes"
    source: ClassVar[str] = "Kool et al. 2019"

    def noise_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (self.k, *shape)

    def __call__(self, loss: Loss, q: Latent, noise: Tensor, knobs: Knobs = {}) -> Tensor:
        z = q.sample(noise).detach()
        value = loss(z)
        others = (value.sum(0) - value) / (self.k - 1)
        return (value + gradient_only(value - others, q.log_prob(z))).mean(0)
