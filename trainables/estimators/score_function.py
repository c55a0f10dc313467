"""The score-function estimator, REINFORCE (Williams 1992; SG C.3.2; DVAE eq. 72-81)."""

from typing import Annotated, ClassVar, Literal

from torch import Tensor

from trainables.components import SHAPE, FractionKnob, registered
from trainables.estimators.base import ESTIMATORS, Estimator, Knobs, Loss, score_function
from trainables.latents import FAMILIES, Latent


@registered(ESTIMATORS)
class Reinforce(Estimator):
    """(loss - baseline) * d log q(z), the baseline a running average of the loss over the steps before (SG C.3.2)."""

    name: Annotated[Literal["reinforce"], SHAPE] = "reinforce"
    baseline_momentum: FractionKnob = 0.9
    families: ClassVar[frozenset[str]] = FAMILIES
    bias: ClassVar[Literal["unbiased"]] = "unbiased"
    source: ClassVar[str] = "Williams 1992; SG C.3.2"
    uses_running_loss: ClassVar[bool] = True

    def __call__(self, loss: Loss, q: Latent, noise: Tensor, knobs: Knobs = {}) -> Tensor:
        z = q.sample(noise).detach()
        value = loss(z)
        baseline = knobs.get("running_loss", 0.0)
        return value + score_function(value - baseline, q.log_prob(z))
