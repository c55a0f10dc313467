"""Gumbel-Rao: straight-through Gumbel-Softmax, averaged over noise that gives the same hard code.

Paulus, Maddison & Krause, "Rao-Blackwellizing the straight-through Gumbel-Softmax gradient estimator" (2021).
"""

from typing import ClassVar

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from trainables.components import Name, PositiveShape, registered
from trainables.estimators.base import ESTIMATORS, Knobs, Loss, straight_through
from trainables.estimators.gumbel_softmax import Relaxation
from trainables.latents import Bernoulli, Categorical, Latent


@registered(ESTIMATORS)
class GumbelRao(Relaxation):
    """Uses the hard code z forward, and backward the mean of k relaxed codes with noise drawn given z.

    Its expectation is that of `st_gumbel_softmax` with the same scaling, and its variance is lower; the k draws cost no
    decoder pass. For equal expectations, no gradient may flow through the dependence of the conditional noise on the
    logits, although the paper's text says that it does (docs/errata.md).
    """

    name: Name = "gumbel_rao"
    k: PositiveShape = Field(default=16, title="draws")
    source: ClassVar[str] = "Paulus et al. 2021"

    def noise_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (1 + self.k, *shape)

    def __call__(self, loss: Loss, q: Latent, noise: Tensor, knobs: Knobs = {}) -> Tensor:
        own = self.sampled(q, knobs)
        hard = own.sample(noise[0])
        soft = self.relax(q, conditional_noise(own, hard, noise[1:]).detach(), knobs)
        return loss(straight_through(hard, soft.mean(0)))


def conditional_noise(q: Latent, z: Tensor, noise: Tensor) -> Tensor:
    """Noise of q's family [S, B, *z_shape], conditional on `q.sample(noise)` = z, from standard noise of that shape.

    If z is a draw of q, the result has the distribution of standard noise.

    Raises:
        TypeError: q is Gaussian.
    """
    match q:
        case Categorical():
            # exp(-Gumbel) is exponential: category j has the waiting time e_j / p_j, and the shortest time wins. The
            # winner's time is exponential with rate 1. The time of each other category is that plus its own e_j / p_j.
            waiting = (-noise).exp()
            first = (waiting * z).sum(-1, keepdim=True)
            return -(q.probs * first + (1 - z) * waiting).log()
        case Bernoulli():
            # Inverting the distribution function of x = logit + logistic noise given x > 0 gives
            # x = log(1 + exp(logit) u) - log(1 - u), u = sigmoid(noise); x < 0 is the mirror image.
            sign = 2 * z - 1
            return sign * (F.softplus(sign * q.logits + F.logsigmoid(noise)) + F.softplus(noise)) - q.logits
        case _:
            raise TypeError(f"conditional noise is defined for discrete latents, got {q.family}")
