"""The reparameterization trick (Kingma and Welling 2014; SG section 2)."""

from typing import ClassVar

from torch import Tensor

from trainables.components import Name, registered
from trainables.estimators.base import ESTIMATORS, Estimator, Knobs, Loss
from trainables.latents import Gaussian, Latent


@registered(ESTIMATORS)
class Reparameterization(Estimator):
    """The pathwise gradient through z = mean + standard deviation * noise."""

    name: Name = "reparameterization"
    families: ClassVar[frozenset[str]] = frozenset({"gaussian"})
    bias = "unbiased"
    source: ClassVar[str] = "Kingma & Welling 2014"

    def __call__(self, loss: Loss, q: Latent, noise: Tensor, knobs: Knobs = {}) -> Tensor:
        assert isinstance(q, Gaussian)  # by `families`
        return loss(q.sample(noise))
