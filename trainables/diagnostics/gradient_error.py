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
from trainables.estimators import ESTIMATORS
from trainables.estimators.enumeration import states
from trainables.latents import Gaussian
from trainables.metrics import Metric
from trainables.objective import VAE, Tensors, reconstruction, sub_knobs
from trainables.packing.snapshot import Snapshot

DRAWS = 1024
_PIXELS_AT_ONCE = 2**24
"""The most pixels compared at once with decoded states: 64 MiB in float32."""


def _check(config: TrainingConfig) -> None:
    try:
        ESTIMATORS["exact"].check(config.latent)
    except ValueError as error:
        raise ValueError(f"gradient_error needs the exact gradient, but {error}") from None


@diagnostic(
    {
        "exact_gradient_norm": Metric("norm of the exact gradient", starred=False),
        "gradient_spread": Metric("gradient spread"),
        "gradient_bias_over_exact": Metric("gradient bias / |exact gradient|"),
        "gradient_spread_over_exact": Metric("gradient spread / |exact gradient|"),
        "gradient_cosine": Metric("cosine with the exact gradient", "max"),
    },
    check=_check,
)
def gradient_error(members: Snapshot, *, draws: int = DRAWS) -> Tensors:
    """Compares `draws` estimates g of the gradient in the encoder's output with the exact gradient e; each metric [m].

    e is the gradient of the expected loss under the distribution sampled from, by enumeration. Norms are Euclidean,
    over a fixed batch and the F encoder outputs of each image, in nats per unit of the encoder's output:

        exact_gradient_norm         |e|
        gradient_spread             |standard deviation of g|
        gradient_bias_over_exact    |mean g - e| / |e|
        gradient_spread_over_exact  |standard deviation of g| / |e|
        gradient_cosine             <mean g, e> / (|mean g| |e|)

    DST appendix C divides the bias by |e|, but not the standard deviation: Figure 6 shows gradient_bias_over_exact and
    gradient_spread. |e| falls as the forward temperature rises, so gradient_spread says more about the estimator than
    its ratio to |e|. The ratio shows how small a bias can be measured: an unbiased estimator has a
    gradient_bias_over_exact of about gradient_spread_over_exact / sqrt(draws), not 0.

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
    norm, spread = _norm(exact), variance.sum((-2, -1)).sqrt()
    return {
        "exact_gradient_norm": norm,
        "gradient_spread": spread,
        "gradient_bias_over_exact": _norm(bias) / norm,
        "gradient_spread_over_exact": spread / norm,
        "gradient_cosine": ((exact + bias) * exact).sum((-2, -1)) / (_norm(exact + bias) * norm),
    }


def _norm(gradient: Tensor) -> Tensor:
    return gradient.flatten(1).norm(dim=1)


def _expected_loss(
    config: TrainingConfig, model: VAE, tensors: Tensors, x: Tensor, features: Tensor, knobs: Tensors
) -> Tensor:
    """The expected loss [B] under the distribution sampled from; the decoder is not differentiated."""
    q = config.estimator.sampled(config.latent.posterior(features), sub_knobs(knobs, "estimator"))
    assert not isinstance(q, Gaussian)  # by `_check`
    loss = reconstruction(config, model, tensors, x, knobs)
    z = states(q)[:, None]
    at_once = max(1, _PIXELS_AT_ONCE // x.numel())
    with torch.no_grad():
        nats = torch.cat([loss(part) for part in z.split(at_once)])
    return (q.log_prob(z).exp() * nats).sum(0)
