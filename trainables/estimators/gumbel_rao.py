"""Gumbel-Rao: straight-through Gumbel-Softmax, averaged over the noise that leads to the same hard code.

Paulus, Maddison & Krause, "Rao-Blackwellizing the straight-through Gumbel-Softmax gradient estimator" (2021).
"""

from typing import Annotated, ClassVar, Literal

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from trainables.components import SHAPE, registered
from trainables.estimators.base import ESTIMATORS, Knobs, Loss, straight_through
from trainables.estimators.gumbel_softmax import Relaxation
from trainables.latents import Bernoulli, Categorical, Latent


@registered(ESTIMATORS)
class GumbelRao(Relaxation):
    """The hard code z forward; backward the mean of k relaxed codes, with noise drawn given z.

    Its mean is that of `st_gumbel_softmax` at the same scaling and its variance is lower; the k draws cost no decoder
    pass. As that equality demands, no gradient flows through the dependence of the conditional noise on the logits,
    although the paper's text has it flow (docs/errata.md).
    """

    name: Annotated[Literal["gumbel_rao"], SHAPE] = "gumbel_rao"
    k: Annotated[int, Field(ge=1), SHAPE] = 16
    source: ClassVar[str] = "Paulus et al. 2021"

    def noise_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (1 + self.k, *shape)

    def __call__(self, loss: Loss, q: Latent, noise: Tensor, knobs: Knobs = {}) -> Tensor:
        own = self.sampled(q, knobs)
        hard = own.sample(noise[0])
        soft = self.relax(q, conditional_noise(own, hard, noise[1:]).detach(), knobs)
        return loss(straight_through(hard, soft.mean(0)))


def conditional_noise(q: Latent, z: Tensor, noise: Tensor) -> Tensor:
    """Noise of q's family [S, B, *z_shape] given that `q.sample` of it is z, from standard noise of that shape.

    Where z is a draw of q, the result is standard noise again.
    """
    match q:
        case Categorical():
            # exp(-Gumbel) is exponential: category j rings after e_j / p_j, and the first to ring wins. The winner's
            # time is exponential with rate 1; the others have that time to wait, and from then on their own.
            waiting = (-noise).exp()
            first = (waiting * z).sum(-1, keepdim=True)
            return -(q.probs * first + (1 - z) * waiting).log()
        case Bernoulli():
            # Of x = logit + logistic noise given x > 0, the distribution function inverts to
            # log(1 + exp(logit) u) - log(1 - u), u = sigmoid(noise); the case x < 0 is its mirror image.
            sign = 2 * z - 1
            return sign * (F.softplus(sign * q.logits + F.logsigmoid(noise)) + F.softplus(noise)) - q.logits
        case _:
            raise TypeError(f"conditional noise is defined for discrete latents, got {q.family}")
