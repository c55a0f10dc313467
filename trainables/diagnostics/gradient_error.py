"""Bias, spread and direction of the estimated gradient against the exact one (DST section 5.2.2 and appendix C)."""

import torch
from torch import Tensor

from trainables.config import TrainingConfig
from trainables.diagnostics.base import (
    diagnostic,
    distinct_draws,
    encode,
    estimator_loss,
    estimator_noise,
    fixed_batch,
    output_gradient,
)
from trainables.estimators.enumeration import states
from trainables.latents import Gaussian
from trainables.objective import VAE, Tensors, reconstruction, sub_knobs
from trainables.packing.snapshot import Snapshot

DRAWS = 1024
_PIXELS_AT_ONCE = 2**24
"""How many pixels of all states of a member are decoded at once: 64 MiB in float32."""


@diagnostic("gradient_bias", "gradient_std", "gradient_cosine")
def gradient_error(members: Snapshot, *, draws: int = DRAWS) -> Tensors:
    """How `draws` estimates g of the gradient in the encoder's output compare with the exact gradient e, each [m].

    e is that of the loss's expectation under the distribution sampled from, by enumeration. Over a fixed batch, with
    Euclidean norms:

        gradient_bias    |mean g - e| / |e|
        gradient_std     |standard deviation of g| / |e|
        gradient_cosine  <mean g, e> / (|mean g| |e|)

    An unbiased estimator has gradient_bias of about gradient_std / sqrt(draws), not 0. DST leaves open what divides the
    standard deviation; here it is |e|, so that this floor can be read off.

    Raises:
        ValueError: there are more than 2**14 states.
    """
    draws = distinct_draws(members, draws)
    x = fixed_batch(members)
    features = members.lift(encode)(members.tensors, x)
    exact = output_gradient(members, _expected_loss, x, features).double()
    total, squares = torch.zeros_like(exact), torch.zeros_like(exact)
    for draw in range(draws):
        noise = estimator_noise(members, x.shape[1], draw)
        error = output_gradient(members, estimator_loss, x, features, noise).double() - exact
        total += error
        squares += error.square()
    bias = total / draws
    variance = (squares - draws * bias.square()).clamp(min=0) / (draws - 1)
    norm = _norm(exact)
    return {
        "gradient_bias": _norm(bias) / norm,
        "gradient_std": variance.sum((-2, -1)).sqrt() / norm,
        "gradient_cosine": ((exact + bias) * exact).sum((-2, -1)) / (_norm(exact + bias) * norm),
    }


def _norm(gradient: Tensor) -> Tensor:
    return gradient.flatten(1).norm(dim=1)


def _expected_loss(
    config: TrainingConfig, model: VAE, tensors: Tensors, x: Tensor, features: Tensor, knobs: Tensors
) -> Tensor:
    """The loss's expectation under the distribution sampled from [B], whose decoder is not differentiated."""
    q = config.estimator.sampled(config.latent.posterior(features), sub_knobs(knobs, "estimator"))
    assert not isinstance(q, Gaussian)  # by `TrainingConfig.check_diagnostic`
    loss = reconstruction(config, model, tensors, x, knobs)
    z = states(q)[:, None]
    at_once = max(1, _PIXELS_AT_ONCE // x.numel())
    with torch.no_grad():
        nats = torch.cat([loss(part.expand(-1, *q.logits.shape)) for part in z.split(at_once)])
    return (q.log_prob(z).exp() * nats).sum(0)
