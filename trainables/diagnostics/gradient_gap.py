"""The gradient gap of a relaxation (DST section 5.2.1 and appendix D; Huh et al. 2023)."""

import torch
from torch import Tensor

from trainables.config import TrainingConfig
from trainables.diagnostics.base import (
    diagnostic,
    encode,
    estimator_loss,
    estimator_noise,
    fixed_batch,
    output_gradient,
)
from trainables.latents import DISCRETE
from trainables.metrics import Metric
from trainables.objective import VAE, Tensors, reconstruction, sub_knobs
from trainables.packing.snapshot import Snapshot

DRAWS = 100


def _check(config: TrainingConfig) -> None:
    code = (1, *config.latent.z_shape)
    one_code = config.estimator.noise_shape(code) == code and not config.estimator.relaxes
    if config.latent.family not in DISCRETE or not one_code:
        raise ValueError(
            "gradient_gap needs discrete latents and an estimator that draws one discrete code, "
            f"got {config.latent.family!r} and {config.estimator.name!r}"
        )


@diagnostic({"gradient_gap": Metric("gradient gap [nats]")}, check=_check)
def gradient_gap(members: Snapshot, *, draws: int = DRAWS) -> Tensors:
    """The distance [m] between the gradients through the relaxed code and through the discrete code.

    For each image and draw, it subtracts the estimator's gradient from d loss / d logits through the relaxation
    (`Estimator.relax`), with the same noise. The metric is the Euclidean norm, averaged over images and draws, in nats
    per unit of the logits. DST Figure 5 shows its logarithm; DST's text says squared norm, its formula has the norm.
    """
    x = fixed_batch(members)
    features = members.lift(encode)(members.tensors, x)
    total = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    for draw in range(draws):
        noise = estimator_noise(members, x.shape[1], draw)
        gap = output_gradient(members, _through_relaxed, x, features, noise)
        gap -= output_gradient(members, estimator_loss, x, features, noise)
        total += gap.norm(dim=-1).mean(-1)
    return {"gradient_gap": total / draws}


def _through_relaxed(
    config: TrainingConfig, model: VAE, tensors: Tensors, x: Tensor, features: Tensor, noise: Tensor, knobs: Tensors
) -> Tensor:
    z = config.estimator.relax(config.latent.posterior(features), noise, sub_knobs(knobs, "estimator"))
    return reconstruction(config, model, tensors, x, knobs)(z)
