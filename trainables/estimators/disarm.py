"""DisARM: antithetic pairs of bits, Rao-Blackwellized.

Dong, Mnih & Tucker, "DisARM: an antithetic gradient estimator for binary latent variables" (2020), eq. 7; published at
the same time by Yin et al. 2020 (U2G).
"""

from typing import ClassVar

from torch import Tensor

from trainables.components import Name, registered
from trainables.estimators.base import ESTIMATORS, Estimator, Knobs, Loss, gradient_only
from trainables.latents import Bernoulli, Latent


@registered(ESTIMATORS)
class DisARM(Estimator):
    """The gradient for each bit is (loss(z) - loss(z')) / 2 * (z - z') sigmoid(|l|), with an antithetic pair z and z'.

    z uses the logistic noise and z' its negative, so each is a draw of q. Bits that are equal in z and z' get no
    gradient.
    """

    name: Name = "disarm"
    families: ClassVar[frozenset[str]] = frozenset({"bernoulli"})
    bias = "unbiased"
    samples: ClassVar[str] = "2"
    cost: ClassVar[str] = "2 decoder passes"
    source: ClassVar[str] = "Dong et al. 2020"

    def __call__(self, loss: Loss, q: Latent, noise: Tensor, knobs: Knobs = {}) -> Tensor:
        assert isinstance(q, Bernoulli)  # by `families`
        z, twin = q.sample(noise), q.sample(-noise)
        value, twin_value = loss(z), loss(twin)
        weights = (z - twin) * q.logits.abs().sigmoid().detach()
        return 0.5 * (value + twin_value) + gradient_only(0.5 * (value - twin_value), (weights * q.logits).sum(-1))
