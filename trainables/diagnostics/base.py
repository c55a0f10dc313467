"""Measures the diagnostics of a cohort, and has the functions that diagnostics share.

Shapes. M members of a cohort, m of one stack, B images of the batch, F encoder outputs per image.

A diagnostic maps a snapshot of m members to metrics [m]. Gradients are measured on a fixed batch, the first
`batch_size` validation images, with networks in evaluation mode and the same draws in every epoch.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainables.config import TrainingConfig
from trainables.ieee import ieee_float32
from trainables.measurements import DIAGNOSTICS, Diagnostic
from trainables.measurements import diagnostic as diagnostic  # for the files of diagnostics
from trainables.objective import VAE, Tensors, call, estimator_knobs, reconstruction
from trainables.packing.cohort import Cohort
from trainables.packing.snapshot import Snapshot
from trainables.streams import Purpose


@ieee_float32()
def measure(cohort: Cohort, names: Iterable[str], *, draws: int | None = None) -> dict[str, np.ndarray]:
    """Measures diagnostics of a cohort's members; metrics by name, each [M] float64, NaN for diverged members.

    Args:
        cohort: the members, which do not change.
        names: of the diagnostics.
        draws: the number of draws, two or more; None for each diagnostic's default.

    Raises:
        UnknownName: there is no such diagnostic.
        ValueError: a diagnostic does not apply to these members.
    """
    options = {} if draws is None else {"draws": draws}
    chosen: list[Diagnostic] = []
    for name in names:
        chosen.append(DIAGNOSTICS[name])
        chosen[-1].check(cohort.config)
    metrics: dict[str, list[Tensor]] = {metric: [] for one in chosen for metric in one.metrics}
    for members in cohort.snapshots():
        for one in chosen:
            for metric, value in one.of(members, **options).items():
                metrics[metric].append(value.detach().double().cpu())
    diverged = torch.tensor([epoch is not None for epoch in cohort.diverged_epoch])
    return {name: torch.cat(values).masked_fill(diverged, torch.nan).numpy() for name, values in metrics.items()}


def measure_due(cohort: Cohort) -> dict[str, np.ndarray]:
    """The metrics of `TrainingConfig.diagnostics`, each [M] float64; NaN for diagnostics not due after this epoch."""
    metrics: dict[str, np.ndarray] = {}
    diagnostics = cohort.config.diagnostics
    for name, epochs in diagnostics.due():
        if cohort.epoch in epochs:
            metrics |= measure(cohort, [name], draws=diagnostics.draws)
        else:
            metrics |= {metric: np.full(len(cohort), np.nan) for metric in DIAGNOSTICS[name].metrics}
    return metrics


def encode(config: TrainingConfig, model: VAE, tensors: Tensors, x: Tensor) -> Tensor:
    """The encoder's output [B, F] for images of one member: the parameters of q(z|x), flat."""
    return call(model, "encoder", tensors, x)


def fixed_batch(members: Snapshot) -> Tensor:
    """The images for measuring gradients, [m, B, C, H, W]."""
    return next(members.batches(members.config.batch_size))


def distinct_draws(members: Snapshot, draws: int) -> int:
    """`draws`; but two for an estimator without noise, since all its gradients are equal."""
    drawn = math.prod(members.config.estimator.noise_shape((1, *members.config.latent.z_shape)))
    return draws if drawn else 2


def estimator_noise(members: Snapshot, images: int, draw: int) -> Tensor:
    """The estimator's noise for the draw-th gradient on a batch of `images`."""
    shape = members.config.estimator.noise_shape((images, *members.config.latent.z_shape))
    return members.noise(shape, Purpose.DIAGNOSTIC, step=0, draw=draw)


def estimator_loss(
    config: TrainingConfig, model: VAE, tensors: Tensors, x: Tensor, features: Tensor, noise: Tensor, knobs: Tensors
) -> Tensor:
    """The estimator's surrogate [B] of the reconstruction loss of one member's own decoder."""
    loss = reconstruction(config, model, tensors, x, knobs)
    return config.estimator(loss, config.latent.posterior(features), noise, estimator_knobs(knobs))


def output_gradient(
    members: Snapshot, loss: Callable[..., Tensor], x: Tensor, features: Tensor, *noise: Tensor
) -> Tensor:
    """The gradient [m, B, F] of each image's loss with respect to the encoder's output for it.

    Args:
        members: the stack.
        loss: a function of one member, (config, model, tensors, x, features, *noise, knobs) -> [B] nats.
        x: [m, B, C, H, W].
        features: [m, B, F].
        noise: each [m, ...].
    """
    leaf = features.detach().requires_grad_()
    nats: Any = members.lift(loss)(members.tensors, x, leaf, *noise, members.knobs)
    return torch.autograd.grad(nats.sum(), leaf)[0]
