"""Silent Gradients: the expected loss in closed form, with no sample and no variance (SG sections 3 and 4)."""

from typing import ClassVar

from torch import Tensor

from trainables.components import Name, registered
from trainables.estimators.base import ESTIMATORS, Estimator, Knobs, Loss
from trainables.latents import FAMILIES, Latent


@registered(ESTIMATORS)
class Silent(Estimator):
    """The analytic expectation of the loss of a linear Gaussian decoder.

    It is exact with a fixed variance, and with a learned precision if `log_term` is "exact" (Gaussian latents only).

    Warning: with a learned precision and `log_term` "taylor", E[log v^2] is a second-order expansion, so the gradient
    has a bias, but no variance. The bias is small if the mean of the precision v is several times its standard
    deviation, else it is large (docs/errata.md).
    """

    name: Name = "silent"
    families: ClassVar[frozenset[str]] = FAMILIES
    bias = "exact"
    bias_except: ClassVar[str] = 'biased with a learned precision and `log_term` "taylor"'
    samples: ClassVar[str] = "0"
    cost: ClassVar[str] = "2 to 10 matrix products of the decoder's size"
    source: ClassVar[str] = "Silent Gradients; categorical latents are this project's"
    analytic: ClassVar[bool] = True

    def noise_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (0,)

    def __call__(self, loss: Loss, q: Latent, noise: Tensor, knobs: Knobs = {}) -> Tensor:
        return loss.expected(q)
