"""The importance-weighted bound on the log-likelihood (Burda et al. 2016), which allows comparing all estimators."""

import math

import torch
from torch import Tensor

from trainables.config import TrainingConfig
from trainables.diagnostics.base import diagnostic, encode
from trainables.metrics import Metric
from trainables.objective import VAE, Tensors, reconstruction, sub_knobs
from trainables.packing.snapshot import Snapshot
from trainables.streams import Purpose

DRAWS = 100
_IMAGES_AT_ONCE = 1000


@diagnostic({"iw_bound": Metric("importance-weighted bound [nats]", "max")})
@torch.no_grad()
def iw_bound(members: Snapshot, *, draws: int = DRAWS) -> Tensors:
    """A lower bound [m] on log p(x), in nats per image, averaged over the validation images.

    It is log (1/k) sum_i p(x|z_i) p(z_i) / q(z_i|x), with k = `draws` hard codes from the distribution that the
    estimator samples from. For k = 1 its expectation is the ELBO; it approaches log p(x) as k grows. Codes are drawn
    one at a time and their weights are summed, so memory does not grow with k.
    """
    total = torch.zeros(len(members.knobs["running_loss"]), dtype=torch.float64, device=members.images.device)
    for step, x in enumerate(members.batches(_IMAGES_AT_ONCE)):
        features = members.lift(encode)(members.tensors, x)
        shape = (x.shape[1], *members.config.latent.z_shape)
        log_sum = torch.full(x.shape[:2], -torch.inf, dtype=torch.float64, device=x.device)
        for draw in range(draws):
            noise = members.noise(shape, Purpose.DIAGNOSTIC, step=step, draw=draw)
            log_weight = members.lift(_log_weight)(members.tensors, x, features, noise, members.knobs)
            log_sum = torch.logaddexp(log_sum, log_weight.double())
        total += (log_sum - math.log(draws)).sum(1)
    return {"iw_bound": total / len(members.images)}


def _log_weight(
    config: TrainingConfig, model: VAE, tensors: Tensors, x: Tensor, features: Tensor, noise: Tensor, knobs: Tensors
) -> Tensor:
    """Log p(x|z) + log p(z) - log q(z|x) [B] at one code."""
    q = config.estimator.sampled(config.latent.posterior(features), sub_knobs(knobs, "estimator"))
    z = q.sample(noise)
    return -reconstruction(config, model, tensors, x, knobs)(z) + q.prior_log_prob(z) - q.log_prob(z)
