"""Metrics of how the codes use their space: active units, and usage and perplexity of discrete codes.

Shapes. B images, L latents, K categories (2 for bits), M members. Every training has these metrics, after
each epoch and at the end.

| metric | value | source |
|---|---|---|
| active_units | number of latents, 0 to L | Burda et al. 2016, section 5.2 |
| codebook_usage | share of the K categories, 1/K to 1, the mean over latents | Yu et al. 2022, section 5 |
| codebook_perplexity | number of categories, 1 to K, the mean over latents | Baevski et al. 2020, section 3.2 |

All are of the distribution that codes are drawn from, as the reported KL is: with its temperature.

active_units: the latents whose posterior mean varies over images, with a variance above 0.01. The mean of a bit is its
probability. A category has a probability for each of its values: half the sum of their variances is compared, so a
category with two values counts as a bit does. A latent that tells nothing of the image is not active.

codebook_usage: the categories that at least one image draws. A collapsed posterior may use all of them at random.

codebook_perplexity: exp(entropy) of the posterior's average over images, for each latent. K if all categories are
equally likely over the data set, 1 if one latent always has the same value.
"""

from collections.abc import Mapping

from torch import Tensor

from trainables.latents import Bernoulli, Categorical, Gaussian, Latent
from trainables.metrics import Metric, describe

ACTIVE = 0.01
"""The variance of the posterior mean above which a latent is active (Burda et al. 2016)."""


def code_sums(sampled: Latent, z: Tensor) -> dict[str, Tensor]:
    """Sums over images, from which `code_metrics` follows; each [L] or [L, K], float64.

    Args:
        sampled: the distribution that codes are drawn from.
        z: one code for each image, [B, L] or [B, L, K].
    """
    mean = (sampled.mean if isinstance(sampled, Gaussian) else sampled.probs).double()
    # float32 would lose a small variance of a large mean.
    sums = {"code_mean": mean.sum(0), "code_square": mean.square().sum(0)}
    return sums if isinstance(sampled, Gaussian) else sums | {"code_draws": z.double().sum(0)}


def code_metrics(family: str, sums: Mapping[str, Tensor], images: int) -> dict[str, Tensor]:
    """The metrics of M members, each [M], from sums over images.

    Args:
        family: of the latents.
        sums: as `code_sums` gives them, each [M, L] or [M, L, K].
        images: how many images the sums are over.
    """
    mean = sums["code_mean"] / images
    variance = (sums["code_square"] / images - mean.square()).clamp(min=0)
    if family == Gaussian.family:
        return {"active_units": _active(variance)}
    draws = sums["code_draws"]
    if family == Bernoulli.family:
        entropy, used = _entropy(mean) + _entropy(1 - mean), ((draws > 0).double() + (draws < images).double()) / 2
    else:
        assert family == Categorical.family
        variance, entropy, used = variance.sum(-1) / 2, _entropy(mean).sum(-1), (draws > 0).double().mean(-1)
    return {
        "active_units": _active(variance),
        "codebook_usage": used.mean(-1),
        "codebook_perplexity": entropy.exp().mean(-1),
    }


def _active(variance: Tensor) -> Tensor:
    return (variance > ACTIVE).double().sum(-1)


def _entropy(probability: Tensor) -> Tensor:
    """-p log p in nats; 0 at p = 0."""
    return -(probability * probability.clamp(min=1e-300).log())


describe(
    {
        "active_units": Metric("active units", "max", starred=False),
        "codebook_usage": Metric("codebook usage", "max", starred=False),
        "codebook_perplexity": Metric("codebook perplexity", "max", starred=False),
    }
)
