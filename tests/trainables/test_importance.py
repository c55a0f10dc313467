"""The importance-weighted bound, compared with exact log-likelihoods: enumerated, and of a linear Gaussian model."""

import math

import pytest
import torch
from oracles import codes_and_weights
from torch import Tensor

from trainables.config import TrainingConfig
from trainables.data import Images, load
from trainables.diagnostics import measure
from trainables.diagnostics.iw_bound import iw_bound
from trainables.latents import Bernoulli, Categorical, Latent
from trainables.objective import VAE
from trainables.packing.cohort import Cohort

LATENTS = {
    "gaussian": {"family": "gaussian", "size": 4},
    "bernoulli": {"family": "bernoulli", "size": 6},
    "categorical": {"family": "categorical", "size": 3, "categories": 4},
}
ESTIMATOR = {"gaussian": {"name": "reparameterization"}, "bernoulli": {"name": "rloo"}, "categorical": {"name": "rloo"}}
# Large enough that more than one importance weight matters after a short training.
VARIANCE = 0.2


@pytest.fixture
def cohort(request, tmp_path) -> Cohort:
    """A briefly trained member. The parameter is a latent family or (family, estimator)."""
    family, estimator = request.param if isinstance(request.param, tuple) else (request.param, ESTIMATOR[request.param])
    config = TrainingConfig.model_validate(
        {
            "latent": LATENTS[family],
            "encoder": {"name": "mlp", "hidden": (12,)},
            "decoder": {"name": "linear"},
            "likelihood": {"name": "gaussian_fixed", "variance": VARIANCE},
            "estimator": estimator,
            "optim": {"name": "adam", "lr": 1e-2},
            "epochs": 6,
            "batch_size": 32,
        }
    )
    everything = load("digits", tmp_path)
    images = Images(train=everything.train[:256], validation=everything.validation[:200])
    cohort = Cohort([config], images, dtype=torch.float64)
    for _ in range(6):
        cohort.train_epoch()
    return cohort


def bound(cohort: Cohort, draws: int) -> float:
    (members,) = cohort.snapshots()
    return iw_bound(members, draws=draws)["iw_bound"].item()


class Exact:
    """Log-likelihoods of a member in nats, computed slowly from its networks as plain modules."""

    def __init__(self, cohort: Cohort):
        self.config, (members,) = cohort.config, list(cohort.snapshots())
        self.model = VAE(self.config, (1, 8, 8)).double()
        self.model.load_state_dict(cohort.members.model_state(0))
        self.x = next(members.batches(len(members.images)))[0]

    @torch.no_grad()
    def posterior(self, temperature: float = 1.0) -> Latent:
        logits = self.model.encoder(self.x) / temperature
        if self.config.latent.family == "bernoulli":
            return Bernoulli(logits)
        return Categorical(logits.unflatten(1, self.config.latent.z_shape))

    @torch.no_grad()
    def states(self, q: Latent) -> tuple[Tensor, Tensor]:
        """log p(x, z) and log q(z|x) of every state, each [S, B]."""
        z, weights = codes_and_weights(q)
        mean = z.flatten(2) @ self.model.decoder.mu.weight.T + self.model.decoder.mu.bias
        squared = (self.x.flatten(1) - mean).square() / VARIANCE + math.log(2 * math.pi * VARIANCE)
        return -0.5 * squared.sum(-1) - math.log(len(z)), weights

    def log_likelihood(self) -> float:
        """The mean of log p(x) over images."""
        return self.states(self.posterior())[0].logsumexp(0).mean().item()

    def elbo(self, temperature: float = 1.0) -> tuple[float, float]:
        """The mean ELBO over images, and the standard error of its estimate with one code for each image."""
        log_joint, q = self.states(self.posterior(temperature))
        log_weight = log_joint - q.log()
        mean = (q * log_weight).sum(0)
        variance = (q * (log_weight - mean).square()).sum(0)
        return mean.mean().item(), variance.sum().sqrt().item() / len(self.x)


discrete = pytest.mark.parametrize("cohort", ["bernoulli", "categorical"], indirect=True)


@discrete
def test_one_sample_estimates_the_elbo(cohort):
    elbo, error = Exact(cohort).elbo()
    assert abs(bound(cohort, 1) - elbo) < 4 * error
    assert bound(cohort, 20) - elbo > 5 * error  # the test distinguishes a tighter bound


@pytest.mark.parametrize(
    "cohort", [("categorical", {"name": "decoupled_st_gs", "temperature_forward": 6.0})], indirect=True
)
def test_codes_are_of_the_distribution_that_the_estimator_samples(cohort):
    exact, measured = Exact(cohort), bound(cohort, 1)
    elbo, error = exact.elbo(temperature=6.0)
    assert abs(measured - elbo) < 4 * error
    elbo, error = exact.elbo(temperature=1.0)
    assert abs(measured - elbo) > 6 * error


@discrete
def test_rises_to_the_log_likelihood(cohort):
    exact = Exact(cohort)
    log_likelihood, (elbo, _) = exact.log_likelihood(), exact.elbo()
    bounds = [bound(cohort, draws) for draws in (1, 10, 1000)]
    assert bounds == sorted(bounds)
    gaps = [(log_likelihood - one) / (log_likelihood - elbo) for one in bounds]
    assert gaps[0] > 0.8
    assert gaps[1] > 0.1
    # The gap falls as 1/k once k covers the posterior; it is below zero by the error of the estimate only.
    assert -0.02 < gaps[2] < 0.1


@pytest.mark.parametrize("cohort", ["gaussian"], indirect=True)
def test_rises_to_the_log_likelihood_of_a_linear_gaussian_model(cohort):
    exact = Exact(cohort)
    mu = exact.model.decoder.mu
    covariance = mu.weight @ mu.weight.T + VARIANCE * torch.eye(64, dtype=torch.float64)
    marginal = torch.distributions.MultivariateNormal(mu.bias, covariance)
    log_likelihood = marginal.log_prob(exact.x.flatten(1)).mean().item()
    gaps = [log_likelihood - bound(cohort, draws) for draws in (1, 10, 100, 1000)]
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[0] > 0.3
    assert 0 < gaps[3] < 0.1 * gaps[0]


@pytest.mark.parametrize("cohort", ["bernoulli"], indirect=True)
def test_images_are_averaged_whatever_the_batches(cohort, monkeypatch):
    """Other batch sizes draw other codes, but have the same limit."""
    whole = bound(cohort, 1000)
    monkeypatch.setattr("trainables.diagnostics.iw_bound._IMAGES_AT_ONCE", 64)
    parts = bound(cohort, 1000)
    assert parts != whole
    assert abs(parts - whole) < 0.05


@pytest.mark.parametrize("cohort", ["bernoulli"], indirect=True)
def test_default_number_of_samples(cohort):
    assert measure(cohort, ["iw_bound"])["iw_bound"].item() == bound(cohort, 100)
