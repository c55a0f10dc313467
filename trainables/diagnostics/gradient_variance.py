"""The variance of the encoder's gradient that comes from drawing latents (SG C.3.3, Table 1)."""

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
from trainables.objective import VAE, Tensors, reconstruction_losses
from trainables.packing.snapshot import Snapshot

DRAWS = 100


@diagnostic("gradient_variance")
def gradient_variance(members: Snapshot, *, draws: int = DRAWS) -> Tensors:
    """The variance of the gradient of the reconstruction loss in each encoder parameter, summed over parameters, [m].

    One forward pass of the encoder on a fixed batch, whose latent parameters are held; `draws` codes, each with the
    gradient of the batch's mean loss (guide included, weighted as the encoder is trained on it). In nats^2 per unit of
    the parameters squared; unbiased in `draws`. Exactly 0 where the gradient needs no draw.
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
    # The pull-back through the encoder is linear, so deviations are pulled back, and only their squares are summed.
    # They are taken from the first draw before the mean, so that equal draws deviate by exactly 0.
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
