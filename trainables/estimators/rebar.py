"""REBAR: the score-function estimator with a Gumbel-Softmax relaxation as control variate.

Tucker, Mnih, Maddison, Lawson & Sohl-Dickstein, "REBAR: low-variance, unbiased gradient estimates for discrete latent
variable models" (2017).
"""

from typing import ClassVar

import torch
from torch import Tensor

from trainables.components import Name, NonNegativeKnob, PositiveKnob, registered
from trainables.estimators.base import ESTIMATORS, Estimator, Knobs, Loss, gradient_only, relaxed, tempered
from trainables.estimators.gumbel_rao import conditional_noise
from trainables.latents import Latent


@registered(ESTIMATORS)
class Rebar(Estimator):
    """(loss(z) - eta loss(s')) d log q(z) + eta (d loss(s) - d loss(s')), with relaxed codes s and s'.

    s = softmax((l + g) / temperature) has the same noise g as z; s' has noise drawn given z, and its gradient also
    flows through that noise. The estimator is unbiased at every temperature and eta. The paper adapts both to lower the
    variance; here they are constants.
    """

    name: Name = "rebar"
    temperature: PositiveKnob = 0.5
    eta: NonNegativeKnob = 1.0
    bias = "unbiased"
    cost: ClassVar[str] = "3 decoder passes"
    transforms_loss: ClassVar[bool] = True
    source: ClassVar[str] = "Tucker et al. 2017"

    def noise_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (2, *shape)

    def __call__(self, loss: Loss, q: Latent, noise: Tensor, knobs: Knobs = {}) -> Tensor:
        eta, temperature = self.knob("eta", knobs), self.knob("temperature", knobs)
        z = q.sample(noise[0])
        value = loss(z)
        pair = torch.stack((noise[0], conditional_noise(q, z, noise[1])))
        s = relaxed(tempered(q, temperature), pair / temperature)
        # The loss is differentiated here, so that the relaxed codes give the decoder no gradient.
        relaxed_value, pull = torch.func.vjp(loss, s.detach())[:2]
        (slope,) = pull(torch.ones_like(relaxed_value))
        pathwise = gradient_only(slope, s).flatten(2).sum(-1)
        score = gradient_only(value - eta * relaxed_value[1], q.log_prob(z))
        return value + score + eta * (pathwise[0] - pathwise[1])
