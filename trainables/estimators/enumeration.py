"""Estimators that enumerate the values of one latent at a time (IndeCateR), or all states of all latents (exact)."""

from typing import ClassVar

import torch
from torch import Tensor

from trainables.components import Name, registered
from trainables.estimators.base import ESTIMATORS, Estimator, Knobs, Loss, gradient_only
from trainables.latents import Bernoulli, Categorical, Latent, Latents

LOG2_STATES = 14
"""The base-2 logarithm of the largest number of states that `exact` enumerates."""


@registered(ESTIMATORS)
class Exact(Estimator):
    """The exact expectation, as a sum over all states (DST appendix C); a reference for small latent spaces.

    Raises:
        ValueError: there are more than 2**14 states.
    """

    name: Name = "exact"
    bias = "exact"
    samples: ClassVar[str] = "0"
    cost: ClassVar[str] = "K^L decoder passes (bits: 2^L)"
    source: ClassVar[str] = "DST appendix C"

    def check(self, latent: Latents) -> None:
        super().check(latent)
        _check_states(latent.family, latent.z_shape)

    def noise_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (0,)

    def __call__(self, loss: Loss, q: Latent, noise: Tensor, knobs: Knobs = {}) -> Tensor:
        assert isinstance(q, Bernoulli | Categorical)  # by `families`
        z = states(q)[:, None].expand(-1, *q.logits.shape)
        return (q.log_prob(z).exp() * loss(z)).sum(0)


def _check_states(family: str, z_shape: tuple[int, ...]) -> None:
    size, values = z_shape[0], 2 if family == "bernoulli" else z_shape[1]
    if values**size > 2**LOG2_STATES:
        raise ValueError(f"estimator 'exact' enumerates at most 2**{LOG2_STATES} states, got {values}**{size}")


def states(q: Bernoulli | Categorical) -> Tensor:
    """All codes of one image [S, *z_shape], S = 2^L or K^L, in lexicographic order.

    Raises:
        ValueError: there are more than 2**14 states.
    """
    z_shape = q.logits.shape[1:]
    _check_states(q.family, z_shape)
    values = 2 if q.family == "bernoulli" else z_shape[1]
    one = torch.arange(values, device=q.logits.device)
    digits = torch.cartesian_prod(*[one] * z_shape[0]).reshape(-1, z_shape[0])
    z = digits if q.family == "bernoulli" else torch.eye(values, device=digits.device)[digits]
    return z.to(q.logits.dtype)


@registered(ESTIMATORS)
class IndeCateR(Estimator):
    """The exact expectation over each latent's values, with the other latents fixed at one joint draw.

    The gradient is the sum over latents l and values v of loss(z with z_l = v) d q(z_l = v). The probabilities of a
    latent sum to one, so loss(z) can be subtracted. Then each value other than the drawn one costs a forward decoder
    pass.
    """

    name: Name = "indecater"
    bias = "unbiased"
    cost: ClassVar[str] = "1 decoder pass and L (K - 1) forward ones (bits: L)"
    source: ClassVar[str] = "De Smet et al. 2023"

    def __call__(self, loss: Loss, q: Latent, noise: Tensor, knobs: Knobs = {}) -> Tensor:
        assert isinstance(q, Bernoulli | Categorical)  # by `families`
        z = q.sample(noise)
        value = loss(z)
        others, probs = _other_values(q, z)
        # changed [R, L, B, *z_shape]: the draw, but with latent l at its r-th other value.
        latent = torch.eye(z.shape[1], dtype=torch.bool, device=z.device)[:, None]
        changed = torch.where(latent if z.dim() == 2 else latent[..., None], others[:, None], z)
        with torch.no_grad():
            difference = (loss(changed) - value).transpose(-1, -2)
        return value + gradient_only(difference, probs).sum((0, -1))


def _other_values(q: Bernoulli | Categorical, z: Tensor) -> tuple[Tensor, Tensor]:
    """The R = K - 1 values of each latent that differ from z [R, B, *z_shape], and their probabilities [R, B, L]."""
    if isinstance(q, Bernoulli):
        others = (1 - z)[None]
        return others, others * q.probs + (1 - others) * (1 - q.probs)
    others = torch.stack([z.roll(shift, -1) for shift in range(1, z.shape[-1])])
    return others, (others * q.probs).sum(-1)
