"""The objective of one step: reconstruction, KL, and the mixture with a guide's silent gradient.

Every expected value here is computed independently of the objective: expectations by enumerating codes, divergences
and densities by `torch.distributions`, gradients part by part.
"""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import distributions
from torch.nn import functional as F
from torch.testing import assert_close

from trainables import objective
from trainables.config import TrainingConfig
from trainables.data import load
from trainables.estimators import ESTIMATORS
from trainables.objective import VAE, call
from trainables.packing.cohort import Cohort

IMAGE, B, L, K = (1, 3, 3), 5, 3, 4
SIZES = {"gaussian": {"size": L}, "bernoulli": {"size": L}, "categorical": {"size": L, "categories": K}}
EVERY = [
    pytest.param(name, family, id=f"{name}-{family}")
    for name, estimator in sorted(ESTIMATORS.items())
    for family in sorted(estimator.families)
]


def config(estimator, family, guide=None, **changes):
    parts = {
        "latent": {"family": family, **SIZES[family]},
        "encoder": {"name": "mlp", "hidden": [6]},
        "decoder": {"name": "linear"} if estimator == "silent" else {"name": "mlp", "hidden": [7]},
        "likelihood": {"name": "gaussian_fixed", "variance": 0.2},
        "estimator": {"name": estimator},
        "guide": guide,
        "optim": {"name": "adam"},
        "epochs": 5,
        "batch_size": B,
    }
    return TrainingConfig.model_validate(parts | changes)


class Step:
    """One training step in float64: all arguments of the loss, with the parameters as leaves."""

    def __init__(self, config, guide_weight=None, **knobs):
        generator = torch.Generator().manual_seed(0)
        self.config = config
        with torch.random.fork_rng():
            torch.manual_seed(1)
            self.model = VAE(config, IMAGE).double()
        self.tensors = {name: value.clone().requires_grad_() for name, value in self.model.named_parameters()}
        self.x = torch.rand(B, *IMAGE, dtype=torch.float64, generator=generator)
        shape = config.estimator.noise_shape((B, *config.latent.z_shape))
        uniform = torch.rand(shape, dtype=torch.float64, generator=generator)
        self.noise = {
            "gaussian": lambda u: distributions.Normal(0.0, 1.0).icdf(u),
            "bernoulli": torch.logit,
            "categorical": lambda u: -(-u.log()).log(),
        }[config.latent.family](uniform)
        self.knobs = {path: torch.tensor(value, dtype=torch.float64) for path, value in config.knobs().items()}
        self.knobs |= {"running_loss": torch.tensor(2.0, dtype=torch.float64)}
        self.knobs |= {path: torch.tensor(value, dtype=torch.float64) for path, value in knobs.items()}
        if guide_weight is not None:
            self.knobs["guide.weight"] = torch.tensor(guide_weight, dtype=torch.float64)
            self.knobs["guide.over"] = torch.tensor(0.0, dtype=torch.float64)

    def loss(self):
        sums = objective.training_loss(self.config, self.model, self.tensors, self.x, self.noise, self.knobs)
        return sums.loss / B

    def gradient(self, value):
        """The gradient of a scalar by parameter; zero for parameters that it does not depend on."""
        gradients = torch.autograd.grad(value, list(self.tensors.values()), allow_unused=True)
        return {
            name: torch.zeros_like(parameter) if gradient is None else gradient
            for (name, parameter), gradient in zip(self.tensors.items(), gradients, strict=True)
        }

    def q(self):
        return self.config.latent.posterior(call(self.model, "encoder", self.tensors, self.x))

    def noisy(self):
        """The estimator's surrogate on the model's own decoder."""
        loss = objective.reconstruction(self.config, self.model, self.tensors, self.x, self.knobs)
        knobs = objective.sub_knobs(self.knobs, "estimator") | {"running_loss": self.knobs["running_loss"]}
        return self.config.estimator(loss, self.q(), self.noise, knobs).mean()

    def silent(self):
        """E_q of the guide's loss: enumerated over all codes, or for Gaussians from the moments of the output."""
        weight, bias = self.tensors["guide.mu.weight"], self.tensors["guide.mu.bias"]
        x, q = self.x.flatten(1), self.q()
        variance = self.knobs["guide.likelihood.variance"]
        if q.family == "gaussian":
            mean = q.mean @ weight.T + bias
            spread = torch.einsum("dl,bl->bd", weight**2, q.log_variance.exp())
            nll = F.gaussian_nll_loss(mean, x, variance.expand_as(x), full=True, reduction="none")
            return (nll + spread / (2 * variance)).sum(-1).mean()
        values = torch.eye(K) if q.family == "categorical" else torch.tensor([[0.0], [1.0]])
        total = 0.0
        for chosen in itertools.product(range(len(values)), repeat=L):
            z = values[list(chosen)].double()  # [L, K], or [L, 1]
            log_prob = (
                (q.logits.log_softmax(-1) * z).sum((-2, -1))
                if q.family == "categorical"
                else distributions.Bernoulli(logits=q.logits).log_prob(z[:, 0]).sum(-1)
            )
            mean = z.flatten() @ weight.T + bias
            nll = -distributions.Normal(mean, variance.sqrt()).log_prob(x).sum(-1)
            total = total + (log_prob.exp() * nll).mean()
        return total

    def kl(self, temperature=1.0):
        q = self.q()
        match q.family:
            case "gaussian":
                posterior = distributions.Normal(q.mean, (0.5 * q.log_variance).exp())
                prior = distributions.Normal(torch.zeros_like(q.mean), torch.ones_like(q.mean))
            case "bernoulli":
                posterior = distributions.Bernoulli(logits=q.logits / temperature)
                prior = distributions.Bernoulli(logits=torch.zeros_like(q.logits))
            case "categorical":
                posterior = distributions.Categorical(logits=q.logits / temperature)
                prior = distributions.Categorical(logits=torch.zeros_like(q.logits))
        return distributions.kl_divergence(posterior, prior).sum(-1).mean()


def combined(parts, names):
    """The sum of weight * gradient over parts (weight, gradient by name), for some parameters."""
    return {name: sum(weight * gradient[name] for weight, gradient in parts) for name in names}


def of(part, gradient):
    selected = {name: value for name, value in gradient.items() if name.startswith(part + ".")}
    assert selected
    return selected


def close(actual, expected):
    assert_close(actual, expected, rtol=1e-9, atol=1e-12)


def far(actual, expected):
    """Whether the gradients differ by more than rounding."""
    return max(((actual[name] - expected[name]).abs().max()).item() for name in expected) > 1e-4


# --- without a guide -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("estimator", "family"), EVERY)
def test_without_a_guide_the_loss_is_reconstruction_and_kl(estimator, family):
    step = Step(config(estimator, family))
    gradient = step.gradient(step.loss())
    close(step.loss(), step.noisy() + step.kl())
    close(gradient, combined([(1, step.gradient(step.noisy())), (1, step.gradient(step.kl()))], gradient))
    assert all(value.abs().max() > 0 for value in gradient.values())


@pytest.mark.parametrize("family", ["bernoulli", "categorical", "gaussian"])
def test_silent_alone_is_the_gradient_of_the_expectation(family):
    step = Step(config("silent", family, guide={"likelihood": {"name": "gaussian_fixed", "variance": 0.2}}), 1.0)
    # With the decoder's weights, the guide's enumerated expectation is the decoder's, and serves as the reference.
    for name in ("mu.weight", "mu.bias"):
        step.tensors[f"guide.{name}"] = step.tensors[f"decoder.{name}"]
    close(step.gradient(step.noisy()), step.gradient(step.silent()))


@pytest.mark.parametrize("weight", [0.0, 0.5, 3.0])
def test_kl_weight_scales_the_kl_alone(weight):
    step = Step(config("straight_through", "categorical", objective={"kl_weight": weight}))
    close(step.loss(), step.noisy() + weight * step.kl())


def test_kl_weight_is_1_by_default():
    assert config("straight_through", "categorical").objective.kl_weight == 1.0


def test_an_autoencoder_has_no_kl_gradient():
    step = Step(config("straight_through", "bernoulli", objective={"kl_weight": 0.0}))
    gradient = step.gradient(step.loss())
    close(gradient, step.gradient(step.noisy()))
    assert far(gradient, of("encoder", step.gradient(step.noisy() + step.kl())))


@pytest.mark.parametrize("family", ["bernoulli", "categorical"])
@pytest.mark.parametrize(("option", "temperature"), [("one", 1.0), ("forward", 0.4)])
def test_kl_temperature(family, option, temperature):
    own = config("decoupled_st_gs", family, objective={"kl_temperature": option})
    step = Step(own, **{"estimator.temperature_forward": 0.4, "estimator.temperature_backward": 2.0})
    close(step.gradient(step.loss() - step.noisy()), step.gradient(step.kl(temperature)))
    other = 1.4 - temperature
    assert far(step.gradient(step.loss() - step.noisy()), of("encoder", step.gradient(step.kl(other))))


@pytest.mark.parametrize("option", ["one", "forward"])
def test_reported_kl_and_elbo_are_of_the_distribution_sampled_from(option):
    own = config("decoupled_st_gs", "categorical", objective={"kl_temperature": option})
    step = Step(own, **{"estimator.temperature_forward": 0.4})
    sums = objective.evaluation_sums(step.config, step.model, step.tensors, step.x, step.noise, step.knobs)
    close(sums["kl"], B * step.kl(0.4))
    metrics = objective.metrics_of(step.config, sums, B, 9)
    close(metrics["elbo"], -(sums["reconstruction"] + sums["kl"]) / B)


# --- with a guide ----------------------------------------------------------------------------------------------------

FIXED = {"likelihood": {"name": "gaussian_fixed", "variance": 0.3}}


@pytest.mark.parametrize("weight", [1.0, 0.3, 0.0])
@pytest.mark.parametrize(("estimator", "family"), EVERY)
def test_the_encoder_follows_the_weighted_average_and_both_decoders_train_in_full(estimator, family, weight):
    step = Step(config(estimator, family, guide=FIXED), weight)
    gradient = step.gradient(step.loss())
    silent, noisy, kl = (step.gradient(value) for value in (step.silent(), step.noisy(), step.kl()))
    encoder = combined([(weight, silent), (1 - weight, noisy), (1, kl)], of("encoder", gradient))
    close(of("encoder", gradient), encoder)
    close(of("decoder", gradient), of("decoder", noisy))
    close(of("guide", gradient), of("guide", silent))
    # The two averaged gradients differ.
    assert far(silent, of("encoder", noisy))


@pytest.mark.parametrize("weight", [1.0, 0.3, 0.0])
@pytest.mark.parametrize(("estimator", "family"), EVERY)
def test_with_weighted_losses_the_decoders_are_weighted_too(estimator, family, weight):
    step = Step(config(estimator, family, guide=FIXED | {"anneal": "loss"}), weight)
    gradient = step.gradient(step.loss())
    silent, noisy, kl = (step.gradient(value) for value in (step.silent(), step.noisy(), step.kl()))
    close(gradient, combined([(weight, silent), (1 - weight, noisy), (1, kl)], gradient))
    close(of("decoder", gradient), {name: (1 - weight) * value for name, value in of("decoder", noisy).items()})
    close(of("guide", gradient), {name: weight * value for name, value in of("guide", silent).items()})


@pytest.mark.parametrize("family", ["bernoulli", "categorical", "gaussian"])
def test_a_guide_with_learned_precision_trains_encoder_and_both_its_parts(family):
    estimator = "reparameterization" if family == "gaussian" else "st_gumbel_softmax"
    step = Step(config(estimator, family, guide={}), 1.0)
    gradient = step.gradient(step.loss())
    assert {"guide.mu.weight", "guide.alpha.weight"} < gradient.keys()
    assert all(value.abs().max() > 0 for value in gradient.values())


def test_the_dual_decoder_of_figure_1_has_a_log_scale_of_its_own():
    step = Step(config("reparameterization", "gaussian", guide={}, likelihood={"name": "gaussian_log_scale"}), 0.5)
    output = call(step.model, "decoder", step.tensors, torch.randn(B, L, dtype=torch.float64))
    assert output.shape == (B, 2, 9)
    loss = objective.reconstruction(step.config, step.model, step.tensors, step.x, step.knobs)
    z = torch.randn(B, L, dtype=torch.float64)
    mean, log_scale = call(step.model, "decoder", step.tensors, z).unbind(1)
    close(loss(z), -distributions.Normal(mean, log_scale.exp()).log_prob(step.x.flatten(1)).sum(-1))


def test_annealing_is_linear_from_the_first_epoch_and_stops_at_zero():
    own = config("straight_through", "categorical", guide={"annealing_rate": 0.3})
    knobs = {path: torch.tensor([value, value]) for path, value in own.knobs().items()}
    knobs["guide.annealing_rate"] = torch.tensor([0.3, 0.0])
    weights = torch.stack([objective.epoch_knobs(own, knobs, epoch)["guide.weight"] for epoch in range(1, 6)])
    assert_close(weights[:, 0], torch.tensor([0.7, 0.4, 0.1, 0.0, 0.0]))
    assert_close(weights[:, 1], torch.ones(5))  # the paper's standalone Silent Gradients


# --- the discrete VAE of the tutorial --------------------------------------------------------------------------------


def discrete_vae(**changes):
    return config("reinforce", "categorical", likelihood={"name": "bernoulli"}, data={"pixels": "binarize"}, **changes)


def test_the_discrete_vae_is_bce_and_entropy():
    step = Step(discrete_vae())
    step.x = (step.x > 0.5).double()
    z = step.q().sample(step.noise).flatten(1)
    logits = call(step.model, "decoder", step.tensors, z)[:, 0]
    bce = F.binary_cross_entropy_with_logits(logits, step.x.flatten(1), reduction="none").sum(-1)
    entropy = distributions.Categorical(logits=step.q().logits).entropy().sum(-1)
    close(step.loss(), (bce + L * np.log(K) - entropy).mean())  # DVAE eq. 86
    sums = objective.evaluation_sums(step.config, step.model, step.tensors, step.x, step.noise, step.knobs)
    metrics = objective.metrics_of(step.config, sums, B, 9)
    close(metrics["elbo"], -step.loss())
    close(metrics["bce"], bce.mean())


def test_the_discrete_vae_trains_on_binarized_pixels():
    own = discrete_vae(optim={"name": "adam", "lr": 0.01}, encoder={"name": "mlp", "hidden": [64]}, batch_size=32)
    cohort = Cohort([own], load("digits", Path()))
    elbo = [cohort.train_epoch()["elbo"][0] for _ in range(4)]
    assert elbo[-1] > elbo[0] + 0.5
    # Without information in the code, the best is 27.1 nats per image: the entropy of the average image's pixels.
    assert elbo[-1] > -27.5
