"""The contract of gradient estimators.

    surrogate = estimator(loss, q, noise, knobs)

Shapes. B images, z_shape = [L] or [L, K]; leading axes are samples.

- `loss` maps codes z [..., B, *z_shape] to the reconstruction loss [..., B] in nats; `loss.expected(q)` is its exact
  expectation [B], if the decoder is linear.
- `q` is the posterior; the estimator differentiates with respect to its parameters.
- `noise` is standard noise of the family (normal, logistic or Gumbel) of shape `estimator.noise_shape((B, *z_shape))`.
  There is no other randomness. An estimator that draws several codes asks for a leading axis.
- `knobs` are the member's values of the estimator's fields, each a scalar tensor; an absent one has the value of the
  estimator's field. With `uses_running_loss`, `running_loss` is the average loss of the previous steps.
- The result is `surrogate` [B] in nats. Its value is the loss at the sample, the mean over samples, or the expectation.
  Its gradient with respect to q's parameters is the estimate. Its gradient with respect to all else, such as the
  decoder, is the ordinary gradient of that value.

Estimators are pure functions and work under `torch.func.vmap`. A new estimator is a new file in this folder.
"""

from collections.abc import Mapping
from typing import ClassVar, Literal, Protocol, TypeVar

import torch
from torch import Tensor

from trainables.components import Component
from trainables.latents import DISCRETE, Latent, Latents
from trainables.registry import Registry

ESTIMATORS: Registry["Estimator"] = Registry("estimator")
Knobs = Mapping[str, Tensor]
Q = TypeVar("Q", bound=Latent)


class Loss(Protocol):
    """A reconstruction loss as a function of the code, in nats."""

    def __call__(self, z: Tensor) -> Tensor: ...

    def expected(self, q: Latent) -> Tensor: ...


class Estimator(Component):
    """An estimator of the gradient of E_q[loss(z)] with respect to the parameters of q."""

    families: ClassVar[frozenset[str]] = DISCRETE
    bias: ClassVar[Literal["unbiased", "biased", "exact"]]
    """The bias against the gradient of E[loss] under `sampled(q)`."""
    bias_except: ClassVar[str] = ""
    """The cases with another bias, in words."""
    samples: ClassVar[str] = "1"
    """The number of codes drawn per image."""
    cost: ClassVar[str] = "1 decoder pass"
    source: ClassVar[str]
    analytic: ClassVar[bool] = False
    """Whether it needs `loss.expected`, that is, a linear decoder."""
    uses_running_loss: ClassVar[bool] = False
    """Whether the average loss of previous steps is kept."""
    relaxes: ClassVar[bool] = False
    """Whether its forward pass uses relaxed codes instead of discrete ones."""
    transforms_loss: ClassVar[bool] = False
    """Whether it applies a `torch.func` transform to `loss`, which then must not change anything in place."""

    def check(self, latent: Latents) -> None:
        """Checks that the estimator works on these latents.

        Raises:
            ValueError: it does not; the message says why.
        """
        if latent.family not in self.families:
            families = " or ".join(sorted(self.families))
            raise ValueError(f"estimator {self.name!r} works on {families} latents, got {latent.family!r}")

    def noise_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the noise that it needs for codes of shape [B, *z_shape]."""
        return shape

    def sampled(self, q: Q, knobs: Knobs) -> Q:
        """The distribution that its forward pass draws codes from; the reported KL and ELBO are of this one."""
        return q

    def relax(self, q: Latent, noise: Tensor, knobs: Knobs) -> Tensor:
        """The relaxed code of discrete latents, with the shape of the noise; its argmax is the code that is drawn.

        It is `relaxed` of the distribution sampled from, unless the estimator has its own relaxation.
        """
        return relaxed(self.sampled(q, knobs), noise)

    def scheduled(self, knobs: Knobs, progress: float) -> dict[str, Tensor]:
        """The scheduled knobs at this progress of the training, 0 in the first epoch and 1 in the last."""
        return {}

    def running_loss_momentum(self, knobs: Knobs) -> Tensor:
        """The weight of all earlier steps in the running loss; the last step has the rest. Same shape as the knobs."""
        return torch.full_like(knobs["running_loss"], 0.9)

    def __call__(self, loss: Loss, q: Latent, noise: Tensor, knobs: Knobs = {}) -> Tensor:
        raise NotImplementedError


def tempered(q: Q, temperature: Tensor) -> Q:
    """The discrete distribution with logits divided by the temperature."""
    return type(q)(*(logits / temperature for logits in q.parameters))


def relaxed(q: Latent, noise: Tensor) -> Tensor:
    """The relaxed code: softmax(logits + Gumbel noise), or for bits sigmoid(logits + logistic noise)."""
    (logits,) = q.parameters
    return (logits + noise).softmax(-1) if q.family == "categorical" else (logits + noise).sigmoid()


def straight_through(hard: Tensor, soft: Tensor) -> Tensor:
    """A tensor with the value of `hard` and the gradient of `soft`."""
    return hard + (soft - soft.detach())


def gradient_only(weight: Tensor, of: Tensor) -> Tensor:
    """A tensor with the value 0 and the gradient weight * d `of`."""
    return weight.detach() * (of - of.detach())
