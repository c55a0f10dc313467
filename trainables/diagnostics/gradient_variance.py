"""The variance of the encoder's gradient that is due to drawing latents (SG C.3.3, Table 1)."""

import torch
from torch import Tensor

from trainables.config import TrainingConfig
from trainables.diagnostics.base import (
    diagnostic,
    distinct_draws,
    encode,
    estimator_noise,
    fixed_batch,
    output_gradient,
)
from trainables.metrics import Metric
from trainables.objective import VAE, Tensors, reconstruction_losses
from trainables.packing.snapshot import Snapshot

DRAWS = 100


@diagnostic({"gradient_variance": Metric("gradient variance")})
def gradient_variance(members: Snapshot, *, draws: int = DRAWS) -> Tensors:
    """The variance [m] of the reconstruction loss's gradient, summed over the encoder's parameters.

    The encoder runs once on a fixed batch. Then `draws` codes are drawn; each gives the gradient of the batch's mean
    loss, including the guide, weighted as in training. The unit is nats^2 per unit of the parameters squared. The
    estimate is unbiased for any number of draws. It is exactly 0 if the gradient needs no draw.
    """
    draws = distinct_draws(members, draws)
    x = fixed_batch(members)
    encoder = {
        name: value.detach().requires_grad_()
        for name, value in members.parameters.items()
        if name.startswith("encoder.")
    }
    features = members.lift(encode)(encoder | members.buffers, x)
    gradients = torch.stack(
        [
            output_gradient(members, _loss, x, features, estimator_noise(members, x.shape[1], draw))
            for draw in range(draws)
        ]
    )
    # The backward pass through the encoder is linear, so it can be applied to deviations from the mean. Subtracting the
    # first draw before the mean makes the deviations of equal draws exactly 0.
    deviations = gradients - gradients[0]
    deviations = (deviations - deviations.mean(0)) / x.shape[1]
    total = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    for deviation in deviations:
        for pulled in torch.autograd.grad(features, list(encoder.values()), deviation, retain_graph=True):
            total += torch.linalg.vector_norm(pulled.flatten(1), dim=1, dtype=torch.float64).square()
    return {"gradient_variance": total / (draws - 1)}


def _loss(
    config: TrainingConfig, model: VAE, tensors: Tensors, x: Tensor, features: Tensor, noise: Tensor, knobs: Tensors
) -> Tensor:
    q = config.latent.posterior(features)
    return reconstruction_losses(config, model, tensors, x, q, noise, knobs)[0]
