"""Latent families: mean-field posteriors q(z|x), their samples, densities and divergences.

Shapes. B images (leading axes are allowed before B), L latents, K categories.
All densities and divergences are in nats.

| family      | parameters                  | z          | noise    | prior    |
| Gaussian    | mean, log_variance [B, L]   | [B, L]     | normal   | N(0, I)  |
| Bernoulli   | logits [B, L]               | [B, L]     | logistic | Bern(1/2)|
| Categorical | logits [B, L, K]            | [B, L, K]  | Gumbel   | uniform  |
"""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, TypeVar, cast

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from trainables.components import LARGEST, SHAPE, Frozen, PositiveShape, chosen_from
from trainables.registry import Registry


@dataclass(frozen=True)
class Gaussian:
    """N(mean, exp(log_variance)), both [B, L]."""

    mean: Tensor
    log_variance: Tensor
    family: ClassVar[str] = "gaussian"

    @property
    def variance(self) -> Tensor:
        return self.log_variance.exp()

    @property
    def parameters(self) -> tuple[Tensor, ...]:
        """The tensors the encoder supplied."""
        return self.mean, self.log_variance

    def sample(self, noise: Tensor) -> Tensor:
        """Mean + standard deviation * noise [..., B, L], differentiable in the parameters."""
        return self.mean + (0.5 * self.log_variance).exp() * noise

    def log_prob(self, z: Tensor) -> Tensor:
        """Log q(z) [..., B] of z [..., B, L]."""
        squared = (z - self.mean).square() * (-self.log_variance).exp()
        return -0.5 * (squared + self.log_variance + math.log(2 * math.pi)).sum(-1)

    @staticmethod
    def prior_log_prob(z: Tensor) -> Tensor:
        """Log p(z) [..., B] of z [..., B, L]."""
        return -0.5 * (z.square() + math.log(2 * math.pi)).sum(-1)

    def kl(self) -> Tensor:
        """KL(q || N(0, I)) [B]."""
        return 0.5 * (self.mean.square() + self.variance - self.log_variance - 1).sum(-1)

    def saturated(self) -> Tensor:
        """The share [B] of latents that are almost certain: their variance is below 1e-4 of the prior's."""
        return (self.variance < 1e-4).to(self.mean.dtype).mean(-1)


@dataclass(frozen=True)
class Bernoulli:
    """Independent bits with P(z = 1) = sigmoid(logits), logits [B, L]."""

    logits: Tensor
    family: ClassVar[str] = "bernoulli"

    @property
    def probs(self) -> Tensor:
        return self.logits.sigmoid()

    @property
    def parameters(self) -> tuple[Tensor, ...]:
        """The tensors the encoder supplied."""
        return (self.logits,)

    def sample(self, noise: Tensor) -> Tensor:
        """Hard bits [..., B, L]: 1 where logits + logistic noise > 0. Not differentiable."""
        return (self.logits + noise > 0).to(self.logits.dtype)

    def log_prob(self, z: Tensor) -> Tensor:
        """Log q(z) [..., B] of z [..., B, L] in {0, 1}."""
        return (z * self.logits - F.softplus(self.logits)).sum(-1)

    @staticmethod
    def prior_log_prob(z: Tensor) -> Tensor:
        """Log p(z) [..., B] of z [..., B, L]."""
        return torch.zeros_like(z).sum(-1) - z.shape[-1] * math.log(2)

    def kl(self) -> Tensor:
        """KL(q || Bern(1/2)) [B]."""
        # p log p + (1-p) log(1-p) = p l - softplus(l) at logits l, which has no logarithm of zero if p saturates.
        return (self.probs * self.logits - F.softplus(self.logits) + math.log(2)).sum(-1)

    def saturated(self) -> Tensor:
        """The share [B] of latents with the probability of 1 within 0.01 of 0 or 1."""
        return ((self.probs - 0.5).abs() > 0.49).to(self.logits.dtype).mean(-1)


@dataclass(frozen=True)
class Categorical:
    """Independent one-hot choices with probabilities softmax(logits), logits [B, L, K]."""

    logits: Tensor
    family: ClassVar[str] = "categorical"

    @property
    def probs(self) -> Tensor:
        return self.logits.softmax(-1)

    @property
    def parameters(self) -> tuple[Tensor, ...]:
        """The tensors the encoder supplied."""
        return (self.logits,)

    def sample(self, noise: Tensor) -> Tensor:
        """One-hot [..., B, L, K]: argmax of logits + Gumbel noise. Not differentiable."""
        return one_hot_argmax(self.logits + noise)

    def log_prob(self, z: Tensor) -> Tensor:
        """Log q(z) [..., B] of one-hot z [..., B, L, K]."""
        return (z * self.logits.log_softmax(-1)).sum((-2, -1))

    @staticmethod
    def prior_log_prob(z: Tensor) -> Tensor:
        """Log p(z) [..., B] of z [..., B, L, K]."""
        return torch.zeros_like(z).sum((-2, -1)) - z.shape[-2] * math.log(z.shape[-1])

    def kl(self) -> Tensor:
        """KL(q || uniform) [B] = L log K - entropy (DVAE eq. 66-70)."""
        log_probs = self.logits.log_softmax(-1)
        return (log_probs.exp() * (log_probs + math.log(self.logits.shape[-1]))).sum((-2, -1))

    def saturated(self) -> Tensor:
        """The share [B] of latents with a category of probability above 0.99."""
        return (self.probs.amax(-1) > 0.99).to(self.logits.dtype).mean(-1)


Latent = Gaussian | Bernoulli | Categorical
Q = TypeVar("Q", bound=Latent)
DISCRETE = frozenset({"bernoulli", "categorical"})
FAMILIES = frozenset({"gaussian"}) | DISCRETE


def one_hot_argmax(scores: Tensor) -> Tensor:
    """One-hot of the largest score along the last axis, in the dtype of the scores."""
    # Not `F.one_hot`, which reads the values on a CPU, so it cannot be compiled.
    return torch.zeros_like(scores).scatter(-1, scores.argmax(-1, keepdim=True), 1.0)


def scale_gradient(q: Q, weight: Tensor | float) -> Q:
    """The same distribution, but gradients of its parameters are multiplied by `weight`."""
    return type(q)(*(p.detach() + weight * (p - p.detach()) for p in q.parameters))


LATENTS: Registry["GaussianLatents | BernoulliLatents | CategoricalLatents"] = Registry("latent family")


class GaussianLatents(Frozen):
    """L real latents with a standard normal prior."""

    family: Annotated[Literal["gaussian"], SHAPE] = Field(default="gaussian", title="latents")
    size: PositiveShape = Field(default=200, title="number of latents")
    noise: ClassVar[str] = "normal"

    @property
    def encoder_features(self) -> int:
        return 2 * self.size

    @property
    def z_shape(self) -> tuple[int, ...]:
        """The shape of z for one image."""
        return (self.size,)

    def posterior(self, features: Tensor) -> Gaussian:
        """q(z|x) from the encoder's output [B, 2L]."""
        mean, log_variance = features.chunk(2, dim=-1)
        return Gaussian(mean, log_variance)


class BernoulliLatents(Frozen):
    """L bits with a uniform prior."""

    family: Annotated[Literal["bernoulli"], SHAPE] = Field(default="bernoulli", title="latents")
    size: PositiveShape = Field(default=200, title="number of latents")
    noise: ClassVar[str] = "logistic"

    @property
    def encoder_features(self) -> int:
        return self.size

    @property
    def z_shape(self) -> tuple[int, ...]:
        """The shape of z for one image."""
        return (self.size,)

    def posterior(self, features: Tensor) -> Bernoulli:
        """q(z|x) from the encoder's output [B, L]."""
        return Bernoulli(features)


class CategoricalLatents(Frozen):
    """L one-hot choices among K categories with a uniform prior."""

    family: Annotated[Literal["categorical"], SHAPE] = Field(default="categorical", title="latents")
    size: PositiveShape = Field(default=4, title="number of latents")
    categories: Annotated[int, Field(ge=2, le=LARGEST), SHAPE] = 8
    noise: ClassVar[str] = "gumbel"

    @property
    def encoder_features(self) -> int:
        return self.size * self.categories

    @property
    def z_shape(self) -> tuple[int, ...]:
        """The shape of z for one image."""
        return (self.size, self.categories)

    def posterior(self, features: Tensor) -> Categorical:
        """q(z|x) from the encoder's output [B, L*K]."""
        return Categorical(cast(Tensor, features.unflatten(-1, self.z_shape)))


for _family in (GaussianLatents(), BernoulliLatents(), CategoricalLatents()):
    LATENTS.add(_family.family, _family)

Latents = Annotated[GaussianLatents | BernoulliLatents | CategoricalLatents, chosen_from(LATENTS, key="family")]
