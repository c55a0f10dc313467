"""The contract of every estimator.

    surrogate = estimator(loss, q, noise, knobs)

Shapes. B images, z_shape = [L] or [L, K], S samples (an estimator's own).

- `loss` maps codes z [..., B, *z_shape] to the reconstruction loss [..., B] in nats, leading axes being samples;
  `loss.expected(q)` is its exact expectation [B], where the decoder is linear.
- `q` is the posterior; the estimator differentiates with respect to its parameters.
- `noise` is standard noise of the family (normal, logistic or Gumbel) of shape `estimator.noise_shape((B, *z_shape))`:
  all the randomness there is. An estimator that draws more than one code asks for a leading axis.
- `knobs` are the member's own values of the estimator's fields, each a scalar tensor; what is absent is taken from the
  estimator itself. `running_loss`, where `uses_running_loss` is set, is the average loss of the steps before this one.
- The result is `surrogate` [B] nats. Its value is the loss at the sample (or the mean over samples, the expectation).
  Its gradient with respect to q's parameters is the estimate; with respect to everything else (the decoder, for one) it
  is the ordinary gradient of that value.

Estimators are pure and work under `torch.func.vmap`; adding one is adding a file to this folder.
"""

from collections.abc import Mapping
from typing import ClassVar, Literal, Protocol, TypeVar

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
    """A way to differentiate E_q[loss(z)] with respect to the parameters of q."""

    families: ClassVar[frozenset[str]] = DISCRETE
    bias: ClassVar[Literal["unbiased", "biased", "exact"]]
    """Against the gradient of E[loss] under `sampled(q)`."""
    bias_except: ClassVar[str] = ""
    """Where that label does not hold, in words."""
    samples: ClassVar[str] = "1"
    """How many codes are drawn for an image."""
    cost: ClassVar[str] = "1 decoder pass"
    source: ClassVar[str]
    analytic: ClassVar[bool] = False
    """Whether it needs `loss.expected`, that is, a linear decoder."""
    uses_running_loss: ClassVar[bool] = False
    relaxes: ClassVar[bool] = False
    """Whether its forward pass has relaxed codes in place of discrete ones."""
    transforms_loss: ClassVar[bool] = False
    """Whether it applies a `torch.func` transform to `loss`, which must then change nothing in place."""

    def check(self, latent: Latents) -> None:
        """Whether it can work on these latents.

        Raises:
            ValueError: it cannot; the message says why.
        """
        if latent.family not in self.families:
            families = " or ".join(sorted(self.families))
            raise ValueError(f"estimator {self.name!r} works on {families} latents, got {latent.family!r}")

    def noise_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the noise it wants for codes of shape [B, *z_shape]."""
        return shape

    def sampled(self, q: Q, knobs: Knobs) -> Q:
        """The distribution that its forward pass draws codes from: reported KL and ELBO are of this one."""
        return q

    def relax(self, q: Latent, noise: Tensor, knobs: Knobs) -> Tensor:
        """The relaxed code, shaped as the noise: its argmax is the code that the forward pass draws (discrete latents).

        `relaxed` at the distribution sampled from, unless an estimator has a relaxation of its own.
        """
        return relaxed(self.sampled(q, knobs), noise)

    def scheduled(self, knobs: Knobs, progress: float) -> dict[str, Tensor]:
        """What its knobs become at this share of the training, 0 in the first epoch and 1 in the last."""
        return {}

    def __call__(self, loss: Loss, q: Latent, noise: Tensor, knobs: Knobs = {}) -> Tensor:
        raise NotImplementedError


def tempered(q: Q, temperature: Tensor) -> Q:
    """The discrete distribution with logits divided by the temperature."""
    return type(q)(*(logits / temperature for logits in q.parameters))


def relaxed(q: Latent, noise: Tensor) -> Tensor:
    """softmax(logits + Gumbel noise), or for bits sigmoid(logits + logistic noise)."""
    (logits,) = q.parameters
    return (logits + noise).softmax(-1) if q.family == "categorical" else (logits + noise).sigmoid()


def straight_through(hard: Tensor, soft: Tensor) -> Tensor:
    """Exactly `hard` forward, the gradient of `soft` backward."""
    return hard + (soft - soft.detach())


def gradient_only(weight: Tensor, of: Tensor) -> Tensor:
    """Zero forward; backward weight * d `of`."""
    return weight.detach() * (of - of.detach())
