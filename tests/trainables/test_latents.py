"""Latent families compared with `torch.distributions` and enumeration."""

import itertools
import math

import pytest
import torch
from scipy import stats
from torch import distributions as D
from torch.testing import assert_close

from trainables.latents import (
    LATENTS,
    Bernoulli,
    BernoulliLatents,
    Categorical,
    CategoricalLatents,
    Gaussian,
    GaussianLatents,
    one_hot_argmax,
    scale_gradient,
)
from trainables.streams import Purpose, Streams

B, L, K = 5, 3, 4


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def posterior(family: str) -> Gaussian | Bernoulli | Categorical:
    match family:
        case "gaussian":
            return Gaussian(normal(B, L), normal(B, L, seed=1))
        case "bernoulli":
            return Bernoulli(2 * normal(B, L))
        case _:
            return Categorical(2 * normal(B, L, K))


def reference(family: str) -> tuple[D.Distribution, D.Distribution]:
    """Posterior and prior as distributions over whole codes."""
    q = posterior(family)
    match q:
        case Gaussian():
            pair = D.Normal(q.mean, (q.log_variance / 2).exp()), D.Normal(torch.zeros(B, L), torch.ones(B, L))
        case Bernoulli():
            pair = D.Bernoulli(logits=q.logits), D.Bernoulli(torch.full((B, L), 0.5))
        case Categorical():
            pair = D.OneHotCategorical(logits=q.logits), D.OneHotCategorical(torch.full((B, L, K), 1 / K))
    return D.Independent(pair[0], 1), D.Independent(pair[1], 1)


FAMILIES = ["gaussian", "bernoulli", "categorical"]


@pytest.mark.parametrize("family", FAMILIES)
def test_densities_and_divergence_are_those_of_torch(family):
    q, (own, prior) = posterior(family), reference(family)
    z = own.sample((7,)).double()
    assert_close(q.log_prob(z), own.log_prob(z), rtol=1e-12, atol=1e-12)
    assert_close(q.prior_log_prob(z), prior.log_prob(z).double(), rtol=1e-6, atol=1e-6)
    assert_close(q.kl(), D.kl_divergence(own, prior).double(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("family", "codes"),
    [
        ("bernoulli", torch.tensor(list(itertools.product([0.0, 1.0], repeat=L))).double()),
        ("categorical", torch.eye(K).double()[torch.tensor(list(itertools.product(range(K), repeat=L)))]),
    ],
)
def test_discrete_divergence_by_enumeration(family, codes):
    q = posterior(family)
    z = codes[:, None].expand(-1, B, *codes.shape[1:])  # every code, for every image
    probability = q.log_prob(z).exp()
    assert_close(probability.sum(0), torch.ones(B).double(), rtol=1e-12, atol=0)
    assert_close(q.prior_log_prob(z).exp().sum(0), torch.ones(B).double(), rtol=1e-12, atol=0)
    assert_close(q.kl(), (probability * (q.log_prob(z) - q.prior_log_prob(z))).sum(0), rtol=1e-12, atol=1e-12)


def test_divergence_of_the_prior_is_zero():
    zero = torch.zeros(B, L, K)
    for q in (Gaussian(zero[..., 0], zero[..., 0]), Bernoulli(zero[..., 0]), Categorical(zero)):
        assert_close(q.kl(), torch.zeros(B), rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [30.0, 1e3, 1e8])
def test_divergence_and_its_gradient_are_finite_where_probabilities_saturate(size):
    for q, most in (
        (Bernoulli(torch.tensor([[size, -size, size]]).requires_grad_()), L * math.log(2)),
        (Categorical((size * torch.eye(K)[None, :L]).requires_grad_()), L * math.log(K)),
    ):
        assert_close(q.kl(), torch.tensor([most]), rtol=1e-5, atol=0)
        (gradient,) = torch.autograd.grad(q.kl().sum(), q.parameters)
        assert gradient.isfinite().all()


# --- samples ---------------------------------------------------------------------------------------------------------


def draws(q, n: int = 40_000) -> torch.Tensor:
    """Samples [n, B, *z_shape] from q."""
    streams = Streams([11], dtype=torch.float64)
    shape = (n, *q.parameters[0].shape)
    return q.sample(getattr(streams, LATENTS[q.family].noise)(shape, Purpose.LATENT, epoch=1, step=1)[0])


def test_gaussian_samples_have_their_distribution():
    q = posterior("gaussian")
    standard = ((draws(q) - q.mean) / q.variance.sqrt()).flatten().numpy()
    assert stats.kstest(standard[:100_000], stats.norm.cdf).pvalue > 1e-4
    assert stats.kstest(standard[:100_000] * 1.03, stats.norm.cdf).pvalue < 1e-4


@pytest.mark.parametrize("family", ["bernoulli", "categorical"])
def test_discrete_samples_have_their_distribution(family):
    q = posterior(family)
    z = draws(q)
    assert set(z.unique().tolist()) == {0.0, 1.0}

    def largest_z_score(probs: torch.Tensor) -> torch.Tensor:
        return ((z.mean(0) - probs) / (probs * (1 - probs) / len(z)).sqrt()).abs().max()

    assert largest_z_score(q.probs) < 5
    assert largest_z_score(type(q)(q.logits * 0.9).probs) > 5


def test_categorical_samples_are_one_hot():
    assert draws(posterior("categorical"), 100).sum(-1).eq(1).all()


def test_latents_are_sampled_independently():
    z = draws(Bernoulli(torch.zeros(1, 4, dtype=torch.float64)))[:, 0]
    z_scores = torch.corrcoef(z.T) * len(z) ** 0.5
    assert (z_scores - torch.diag(z_scores.diag())).abs().max() < 5


def test_only_gaussian_samples_are_differentiable():
    mean, logits = torch.zeros(B, L, requires_grad=True), torch.zeros(B, L, K, requires_grad=True)
    assert Gaussian(mean, torch.zeros(B, L)).sample(torch.ones(B, L)).requires_grad
    assert not Bernoulli(logits).sample(torch.ones(B, L, K)).requires_grad
    assert not Categorical(logits).sample(torch.ones(B, L, K)).requires_grad


def test_one_hot_argmax():
    scores = torch.tensor([[0.1, 3.0, -1.0], [5.0, 4.0, 4.5]], dtype=torch.float64)
    assert_close(one_hot_argmax(scores), torch.tensor([[0, 1, 0], [1, 0, 0]], dtype=torch.float64))


# --- the rest --------------------------------------------------------------------------------------------------------


def test_saturated_is_the_share_of_latents_without_randomness():
    quarter = torch.tensor([0.25])
    assert_close(Gaussian(torch.zeros(1, 4), torch.tensor([[-10.0, 0, -9, 1]])).saturated(), quarter)
    assert_close(Bernoulli(torch.tensor([[4.0, -4, 0, 4.7]])).saturated(), quarter)  # sigmoid(4.595) = 0.99
    assert_close(Bernoulli(torch.tensor([[4.0, -5, 0, 4.5]])).saturated(), quarter)
    assert_close(Categorical(torch.tensor([[[6.0, 0], [4, 0], [0, 4.5], [0, 0]]])).saturated(), quarter)


@pytest.mark.parametrize("family", FAMILIES)
def test_scale_gradient_keeps_values_and_scales_gradients(family):
    q = posterior(family)
    leaves = [p.clone().requires_grad_() for p in q.parameters]
    q = type(q)(*leaves)
    scaled = scale_gradient(q, torch.tensor(0.3, dtype=torch.float64))
    assert type(scaled) is type(q)
    for before, after in zip(leaves, scaled.parameters, strict=True):
        assert torch.equal(before, after)
    plain, reduced = (torch.autograd.grad(d.kl().sum(), leaves) for d in (q, scaled))
    assert_close([0.3 * g for g in plain], list(reduced), rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("latents", "features", "z_shape"),
    [
        (GaussianLatents(size=3), 6, (3,)),
        (BernoulliLatents(size=3), 3, (3,)),
        (CategoricalLatents(size=3, categories=4), 12, (3, 4)),
    ],
)
def test_posterior_of_encoder_features(latents, features, z_shape):
    encoded = normal(B, features)
    q = latents.posterior(encoded)
    assert latents.encoder_features == features
    assert latents.z_shape == z_shape
    assert q.family == latents.family
    assert q.parameters[0].shape == (B, *z_shape)
    flat = torch.cat([p.flatten(1) for p in q.parameters], dim=1)
    assert torch.equal(flat, encoded)
    assert draws(q, 2).shape == (2, B, *z_shape)
