"""Likelihoods compared with `torch.distributions`."""

import numpy as np
import pytest
import torch
from oracles import expectation, random_posterior
from torch import distributions as D
from torch.testing import assert_close

from trainables.latents import Gaussian
from trainables.likelihoods import LIKELIHOODS, Affine
from trainables.likelihoods.bernoulli import BernoulliPixels
from trainables.likelihoods.gaussian import GaussianFixed, GaussianLogScale, GaussianPrecision

S, B, P = 3, 4, 6


def output(outputs: int) -> torch.Tensor:
    """A random decoder output [S, B, outputs, P]."""
    return torch.randn(S, B, outputs, P, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def pixels() -> torch.Tensor:
    return torch.rand(B, P, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


GAUSSIANS = {
    "gaussian_fixed": (GaussianFixed(variance=0.3), lambda o: D.Normal(o[..., 0, :], 0.3**0.5)),
    "gaussian_log_scale": (GaussianLogScale(), lambda o: D.Normal(o[..., 0, :], o[..., 1, :].exp())),
    "gaussian_precision": (GaussianPrecision(), lambda o: D.Normal(o[..., 0, :], 1 / o[..., 1, :].abs())),
}


def test_every_registered_likelihood_is_tested():
    assert GAUSSIANS.keys() | {"bernoulli"} == LIKELIHOODS.keys()


@pytest.mark.parametrize("name", sorted(GAUSSIANS))
def test_gaussian_log_density(name):
    likelihood, reference = GAUSSIANS[name]
    o = output(likelihood.outputs)
    want = reference(o).log_prob(pixels()).sum(-1)
    got = likelihood.log_prob(pixels(), o, {})
    assert got.shape == (S, B)
    assert_close(got, want, rtol=1e-12, atol=1e-12)
    assert_close(likelihood.mean(o), reference(o).mean)
    assert not likelihood.binary


@pytest.mark.parametrize("name", sorted(GAUSSIANS))
def test_only_learned_standard_deviations_are_given(name):
    likelihood, reference = GAUSSIANS[name]
    o = output(likelihood.outputs)
    assert_close(likelihood.deviation(o), None if name == "gaussian_fixed" else reference(o).stddev)


def test_bernoulli_log_probability_of_bits():
    o, bits = output(1), pixels().round()
    want = D.Bernoulli(logits=o[:, :, 0]).log_prob(bits).sum(-1)
    assert_close(BernoulliPixels().log_prob(bits, o, {}), want, rtol=1e-12, atol=1e-12)
    assert_close(BernoulliPixels().mean(o), D.Bernoulli(logits=o[:, :, 0]).mean)


def test_bernoulli_of_grey_pixels_is_the_binary_cross_entropy():
    o = output(1)
    want = -torch.nn.functional.binary_cross_entropy_with_logits(
        o[:, :, 0], pixels().expand(S, B, P), reduction="none"
    ).sum(-1)
    assert_close(BernoulliPixels().log_prob(pixels(), o, {}), want, rtol=1e-12, atol=1e-12)


def test_bernoulli_is_finite_at_extreme_logits():
    extreme = torch.tensor([1e4, -1e4]).expand(1, 1, 2)
    value = BernoulliPixels().log_prob(torch.tensor([[1.0, 1.0]]), extreme, {})
    assert_close(value, torch.tensor([-1e4]))


def test_the_variance_of_a_member_overrides_the_default():
    o = output(1)
    own = {"variance": torch.tensor(0.7, dtype=torch.float64)}
    want = GaussianFixed(variance=0.7).log_prob(pixels(), o, {})
    assert_close(GaussianFixed().log_prob(pixels(), o, own), want)
    assert (GaussianFixed().log_prob(pixels(), o, {}) - want).abs().min() > 1


def test_the_sign_of_the_precision_means_nothing():
    o = output(2)
    flipped = torch.stack((o[:, :, 0], -o[:, :, 1]), dim=2)
    assert torch.equal(*(GaussianPrecision().log_prob(pixels(), which, {}) for which in (o, flipped)))


# --- expectations under linear decoders ------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["gaussian", "bernoulli", "categorical"])
def test_the_expectation_at_a_members_variance_is_that_over_all_codes(family):
    generator = torch.Generator().manual_seed(2)
    q = random_posterior(family, B, 2, 3, generator)
    weight = torch.randn(P, *q.parameters[0].shape[1:], dtype=torch.float64, generator=generator)
    bias, own = torch.randn(P, dtype=torch.float64, generator=generator), {"variance": torch.tensor(0.7).double()}

    def log_prob(z: torch.Tensor) -> torch.Tensor:
        mean = z.flatten(2) @ weight.flatten(1).T + bias
        return GaussianFixed().log_prob(pixels(), mean[:, :, None], own)

    got = GaussianFixed().expected_log_prob(pixels(), q, [Affine(weight, bias)], own)
    assert_close(got, expectation(q, log_prob), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("log_term", "exact"), [("taylor", False), ("exact", True)])
def test_a_learned_precision_takes_its_own_log_term(log_term, exact):
    """Quadrature over one latent; the mean of the precision is five standard deviations from 0."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(150)
    z = torch.from_numpy(nodes)
    x = torch.tensor([[0.3, -0.4]], dtype=torch.float64)
    mean = Affine(torch.tensor([[0.5], [-0.2]]).double(), torch.tensor([0.1, 0.2]).double())
    alpha = Affine(torch.tensor([[0.4], [-0.3]]).double(), torch.tensor([2.0, 1.5]).double())
    output = torch.stack([z[:, None] @ one.weight.T + one.bias for one in (mean, alpha)], dim=1)[:, None]
    likelihood = GaussianPrecision(log_term=log_term)
    want = torch.from_numpy(weights / weights.sum()) @ likelihood.log_prob(x, output, {})
    q = Gaussian(torch.zeros(1, 1).double(), torch.zeros(1, 1).double())
    got = likelihood.expected_log_prob(x, q, [mean, alpha], {})
    assert torch.allclose(got, want, rtol=0, atol=1e-5) == exact
    assert torch.allclose(got, want, rtol=0, atol=1e-2)
