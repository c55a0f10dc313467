"""Identities of single estimators, and the reductions of variance that they promise."""

import pytest
import torch
from oracles import CATEGORIES as K
from oracles import LATENTS as L
from oracles import Polynomial, draws_and_exact, gradients, one_image, random_posterior, repeated, standard_noise
from scipy import stats
from torch import Tensor

from trainables.components import knob_value
from trainables.config import TrainingConfig
from trainables.estimators import ESTIMATORS, Estimator
from trainables.estimators.base import straight_through
from trainables.estimators.decoupled import DecoupledSTGS
from trainables.estimators.gumbel_rao import GumbelRao, conditional_noise
from trainables.estimators.gumbel_softmax import GumbelSoftmax, STGumbelSoftmax
from trainables.estimators.rebar import Rebar
from trainables.estimators.reinmax import DecoupledReinMax, ReinMax
from trainables.estimators.score_function import RLOO
from trainables.estimators.straight_through import GappedStraightThrough
from trainables.latents import Bernoulli, Categorical
from trainables.objective import epoch_knobs

DISCRETE = ["bernoulli", "categorical"]


def run(estimator: Estimator, family: str, degree: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Surrogate [B] and its gradient in the logits [B, *z_shape] at fixed noise."""
    generator = torch.Generator().manual_seed(seed)
    q = random_posterior(family, 50, L, K, generator)
    noise = standard_noise(family, estimator.noise_shape(tuple(q.parameters[0].shape)), generator)
    surrogate = estimator(Polynomial(family, degree), q, noise)
    return surrogate, gradients(surrogate, q)[0]


def variance(estimator: Estimator, family: str, degree: int = 3) -> float:
    """The variance of one gradient estimate, summed over parameters."""
    estimates, _ = draws_and_exact(estimator, family, degree=degree, draws=20_000)
    return float(estimates.var(0).sum())


# --- decoupling -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", DISCRETE)
@pytest.mark.parametrize("temperature", [0.3, 1.0, 3.0])
def test_equal_temperatures_are_straight_through_gumbel_softmax_bit_for_bit(family, temperature):
    decoupled = run(DecoupledSTGS(temperature_forward=temperature, temperature_backward=temperature), family)
    coupled = run(STGumbelSoftmax(temperature=temperature), family)
    assert all(map(torch.equal, decoupled, coupled))


@pytest.mark.parametrize("family", DISCRETE)
@pytest.mark.parametrize("kind", [DecoupledSTGS, DecoupledReinMax])
def test_backward_temperature_changes_the_backward_pass_alone(kind, family):
    value, gradient = run(kind(temperature_forward=0.3, temperature_backward=0.3), family)
    other_value, other_gradient = run(kind(temperature_forward=0.3, temperature_backward=3.0), family)
    assert torch.equal(other_value, value)
    assert not torch.equal(other_gradient, gradient)


@pytest.mark.parametrize("family", DISCRETE)
def test_forward_temperature_changes_the_draws_but_not_where_the_relaxation_is_differentiated(family):
    value, gradient = run(DecoupledSTGS(temperature_forward=0.3), family, degree=1)
    other_value, other_gradient = run(DecoupledSTGS(temperature_forward=3.0), family, degree=1)
    assert not torch.equal(other_value, value)
    assert torch.equal(other_gradient, gradient)  # a linear loss has the same slope at every code


@pytest.mark.parametrize("family", DISCRETE)
def test_decoupled_reinmax_contains_reinmax(family):
    decoupled = run(DecoupledReinMax(temperature_backward=1.7), family)
    assert all(map(torch.equal, decoupled, run(ReinMax(temperature=1.7), family)))


def scheduled(epoch: int, *, epochs: int = 5, **fields: float) -> dict[str, float]:
    """The two temperatures in an epoch of `epochs`."""
    config = TrainingConfig.model_validate(
        {
            "latent": {"family": "bernoulli"},
            "encoder": {"name": "mlp"},
            "decoder": {"name": "mlp"},
            "likelihood": {"name": "gaussian_fixed"},
            "estimator": {"name": "decoupled_st_gs", **fields},
            "optim": {"name": "adam"},
            "epochs": epochs,
            "batch_size": 8,
        }
    )
    knobs = {path: torch.tensor([value], dtype=torch.float64) for path, value in config.knobs().items()}
    current = epoch_knobs(config, knobs, epoch)
    return {end: float(current[f"estimator.temperature_{end}"]) for end in ("forward", "backward")}


@pytest.mark.parametrize(("epoch", "forward"), [(1, 1.0), (2, 0.825), (3, 0.65), (4, 0.475), (5, 0.3)])
def test_temperatures_are_linear_in_the_epoch(epoch, forward):
    found = scheduled(epoch, temperature_forward=1.0, temperature_forward_end=0.3, temperature_backward=3.0)
    assert found["forward"] == pytest.approx(forward, abs=1e-15)
    assert found["backward"] == 3.0  # exactly: it has no final value


def test_both_temperatures_may_move():
    assert scheduled(5, temperature_forward_end=0.3, temperature_backward_end=2.0) == {"forward": 0.3, "backward": 2.0}


@pytest.mark.parametrize(("epoch", "epochs", "forward"), [(1, 1, 1.0), (1, 2, 1.0), (2, 2, 0.3)])
def test_short_trainings_begin_at_the_first_temperature_and_end_at_the_last(epoch, epochs, forward):
    found = scheduled(epoch, epochs=epochs, temperature_forward=1.0, temperature_forward_end=0.3)
    assert found["forward"] == pytest.approx(forward, abs=1e-15)


def test_members_with_and_without_a_schedule_share_a_cohort():
    knobs = {
        "temperature_forward": torch.tensor([1.0, 0.5]),
        "temperature_forward_end": torch.tensor([0.2, knob_value(None)]),
        "temperature_backward": torch.tensor([1.0, 1.0]),
        "temperature_backward_end": torch.tensor([knob_value(None), 2.0]),
    }
    found = DecoupledSTGS().scheduled(knobs, progress=0.5)
    torch.testing.assert_close(found["temperature_forward"], torch.tensor([0.6, 0.5]))
    torch.testing.assert_close(found["temperature_backward"], torch.tensor([1.0, 1.5]))


def test_codes_are_drawn_at_the_scheduled_temperature():
    q = Bernoulli(torch.tensor([[0.5, -2.0]]))
    hot = DecoupledSTGS(temperature_forward=1.0, temperature_forward_end=0.1)
    knobs = hot.scheduled({}, progress=1.0)
    torch.testing.assert_close(hot.sampled(q, knobs).logits, q.logits / 0.1)


# --- Gumbel-Softmax and Gumbel-Rao ------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", DISCRETE)
@pytest.mark.parametrize("kind", [GumbelSoftmax, STGumbelSoftmax, GumbelRao])
def test_scalings_differ_except_at_temperature_one(kind, family):
    one = [run(kind(scaling=s), family)[1] for s in ("logits", "logits_and_noise")]
    half = [run(kind(temperature=0.5, scaling=s), family)[1] for s in ("logits", "logits_and_noise")]
    assert torch.equal(*one)
    assert not torch.equal(*half)


def test_gumbel_softmax_of_jang_is_that_of_torch():
    logits = torch.randn(4, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(1)
    desired = torch.nn.functional.gumbel_softmax(logits, tau=0.7)
    torch.manual_seed(1)
    noise = -torch.empty_like(logits).exponential_().log()
    torch.testing.assert_close(GumbelSoftmax(temperature=0.7).relax(Categorical(logits), noise, {}), desired)


@pytest.fixture(params=DISCRETE)
def conditional(request):
    """A posterior, draws z [N, 1, ...] from it, and noise conditional on them."""
    generator = torch.Generator().manual_seed(0)
    q = random_posterior(request.param, 1, L, K, generator, spread=1.5)
    shape = (50_000, *q.parameters[0].shape)
    z = q.sample(standard_noise(request.param, shape, generator))
    return q, z, conditional_noise(q, z, standard_noise(request.param, shape, generator)).detach()


def test_conditional_noise_reproduces_the_hard_code(conditional):
    q, z, noise = conditional
    assert torch.equal(q.sample(noise), z)


def test_conditional_noise_is_marginally_standard(conditional):
    q, _, noise = conditional
    law = stats.gumbel_r if isinstance(q, Categorical) else stats.logistic
    p_values = [stats.kstest(column, law.cdf).pvalue for column in noise.flatten(1).T.numpy()]
    assert min(p_values) > 1e-4
    # Control: for a given code it is far from standard.
    given = noise.flatten(1)[conditional[1].flatten(1)[:, 0] == 1, 0].numpy()
    assert stats.kstest(given, law.cdf).pvalue < 1e-4


def test_conditional_noise_of_different_latents_is_independent(conditional):
    correlation = torch.corrcoef(conditional[2].flatten(1).T) - torch.eye(conditional[2][0].numel())
    assert correlation.abs().max() < 5 / len(conditional[2]) ** 0.5


def test_conditional_noise_is_for_discrete_latents():
    q = random_posterior("gaussian", 1, L, K, torch.Generator().manual_seed(0))
    with pytest.raises(TypeError, match="gaussian"):
        conditional_noise(q, torch.zeros(1, L), torch.zeros(1, 1, L))


@pytest.mark.parametrize("family", DISCRETE)
@pytest.mark.parametrize("scaling", ["logits", "logits_and_noise"])
def test_gumbel_rao_has_the_mean_of_straight_through_gumbel_softmax_and_less_variance(scaling, family):
    rao, plain = (
        draws_and_exact(e, family, degree=3, draws=50_000)[0]
        for e in (
            GumbelRao(temperature=0.5, scaling=scaling, k=8),
            STGumbelSoftmax(temperature=0.5, scaling=scaling),
        )
    )
    assert standard_errors_apart(rao, plain) < 5
    assert rao.var(0).sum() < 0.9 * plain.var(0).sum()


def standard_errors_apart(a: Tensor, b: Tensor) -> float:
    """The difference of the means of two sets of draws [S, P] in standard errors, in the worst coordinate."""
    return ((a.mean(0) - b.mean(0)).abs() / ((a.var(0) + b.var(0)) / len(a)).sqrt()).max().item()


class TotalDerivative(GumbelRao):
    """Differentiates through the conditional noise too, as the paper's text says."""

    def __call__(self, loss, q, noise, knobs={}):
        own = self.sampled(q, knobs)
        hard = own.sample(noise[0])
        soft = self.relax(q, conditional_noise(own, hard, noise[1:]), knobs)
        return loss(straight_through(hard, soft.mean(0)))


@pytest.mark.parametrize("family", DISCRETE)
def test_a_gradient_through_the_conditional_noise_has_another_mean(family):
    total, _ = draws_and_exact(TotalDerivative(temperature=0.5, k=8), family, degree=3, draws=50_000)
    plain, _ = draws_and_exact(
        STGumbelSoftmax(temperature=0.5, scaling="logits_and_noise"), family, degree=3, draws=50_000
    )
    assert standard_errors_apart(total, plain) > 5


@pytest.mark.parametrize("family", DISCRETE)
def test_more_conditional_draws_less_variance(family):
    assert variance(GumbelRao(temperature=0.3, k=16), family) < 0.97 * variance(GumbelRao(temperature=0.3, k=1), family)


# --- ReinMax ----------------------------------------------------------------------------------------------------------


def test_reinmax_is_algorithm_2_of_the_paper():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, L, K, dtype=torch.float64, generator=generator)
    noise = standard_noise("categorical", (6, L, K), generator)
    loss, q = Polynomial("categorical", 3), Categorical(logits.clone().requires_grad_())
    found = gradients(ReinMax(temperature=1.3)(loss, q, noise), q)[0]
    theta = logits.clone().requires_grad_()
    d = q.sample(noise)
    pi0 = theta.softmax(-1)
    pi1 = (d + (theta / 1.3).softmax(-1)) / 2
    pi1 = ((pi1.log() - theta).detach() + theta).softmax(-1)
    pi2 = 2 * pi1 - pi0 / 2
    (desired,) = torch.autograd.grad(loss(pi2 - pi2.detach() + d).sum(), theta)
    torch.testing.assert_close(found, desired)


# --- gapped straight-through ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gap", [0.0, 1.0, 2.5])
def test_gapped_straight_through_is_the_published_perturbation(gap):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(200, L, K, dtype=torch.float64, generator=generator)
    noise = standard_noise("categorical", (200, L, K), generator)
    loss, q = Polynomial("categorical", 3), Categorical(logits.clone().requires_grad_())
    found = gradients(GappedStraightThrough(temperature=0.7, gap=gap)(loss, q, noise), q)[0]
    theta = logits.clone().requires_grad_()
    d = q.sample(noise).detach()
    top = logits.amax(-1, keepdim=True)
    m1 = (top - (logits * d).sum(-1, keepdim=True)) * d
    m2 = (logits + gap - top).clamp(min=0) * (1 - d)
    soft = ((theta + m1 - m2) / 0.7).softmax(-1)
    (desired,) = torch.autograd.grad(loss(d + soft - soft.detach()).sum(), theta)
    torch.testing.assert_close(found, desired)


# --- bits are categories of two ---------------------------------------------------------------------------------------

TWO_FORMS = [
    "straight_through",
    "gumbel_softmax",
    "st_gumbel_softmax",
    "decoupled_st_gs",
    "decoupled_reinmax",
    "reinmax",
    "gst",
    "reinforce",
    "indecater",
]


@pytest.mark.parametrize("name", TWO_FORMS)
def test_bits_are_categories_of_two(name):
    """Logits (l, 0) with Gumbel noise (g, g') give the same bit as logit l with logistic noise g - g'."""
    estimator = ESTIMATORS[name]
    fields = {p: 0.6 for p in ("temperature", "temperature_backward", "gap") if p in type(estimator).model_fields}
    estimator = estimator.model_copy(update=fields)
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(30, L, dtype=torch.float64, generator=generator)
    gumbel = standard_noise("categorical", (30, L, 2), generator)
    cubic = Polynomial("bernoulli", 3)

    bits = Bernoulli(logits.clone().requires_grad_())
    on_bits = estimator(cubic, bits, gumbel[..., 0] - gumbel[..., 1])
    leaf = logits.clone().requires_grad_()
    categories = Categorical(torch.stack([leaf, torch.zeros_like(leaf)], -1))
    on_categories = estimator(lambda z: cubic(z[..., 0]), categories, gumbel)

    torch.testing.assert_close(on_bits, on_categories)
    torch.testing.assert_close(gradients(on_bits, bits)[0], torch.autograd.grad(on_categories.sum(), leaf)[0])


# --- lower variance than REINFORCE without baseline -------------------------------------------------------------------


class PlainReinforce(type(ESTIMATORS["reinforce"])):
    """Ignores the running average."""

    def __call__(self, loss, q, noise, knobs={}):
        return super().__call__(loss, q, noise, {})


@pytest.mark.parametrize("family", ["gaussian", *DISCRETE])
def test_leave_one_out_lowers_the_variance_beyond_averaging(family):
    # The loss is a square, so its mean is far from zero, like that of a reconstruction loss.
    assert variance(RLOO(k=4), family, degree=2) < variance(PlainReinforce(), family, degree=2) / 4


@pytest.mark.parametrize("name", ["disarm", "indecater"])
def test_rao_blackwellized_bits_have_lower_variance(name):
    # Averaging two independent losses, instead of an antithetic pair, would give half.
    assert variance(ESTIMATORS[name], "bernoulli") < variance(PlainReinforce(), "bernoulli") / 2


def test_disarm_is_the_equation_of_the_paper():
    generator = torch.Generator().manual_seed(0)
    q = random_posterior("bernoulli", 40, L, K, generator)
    noise = standard_noise("bernoulli", (40, L), generator)
    cubic = Polynomial("bernoulli", 3)
    surrogate = ESTIMATORS["disarm"](cubic, q, noise)
    p, u = q.probs.detach(), torch.sigmoid(noise)
    b, twin = (u > 1 - p).double(), (1 - u > 1 - p).double()
    signs = torch.where(b != twin, (-1) ** twin, 0)
    desired = 0.5 * (cubic(b) - cubic(twin))[:, None] * signs * torch.maximum(p, 1 - p)
    torch.testing.assert_close(surrogate, 0.5 * (cubic(b) + cubic(twin)))
    torch.testing.assert_close(gradients(surrogate, q)[0], desired)


def test_rebar_is_the_equation_of_the_paper():
    generator = torch.Generator().manual_seed(0)
    q = random_posterior("bernoulli", 40, L, K, generator)
    noise = standard_noise("bernoulli", (2, 40, L), generator)
    cubic, eta, temperature = Polynomial("bernoulli", 3), 0.7, 0.4
    found = gradients(Rebar(eta=eta, temperature=temperature)(cubic, q, noise), q)[0]
    u, v = torch.sigmoid(noise)
    p = q.probs
    b = (u > 1 - p).double()
    given = torch.where(b > 0, 1 - p + p * v, (1 - p) * (1 - v))  # uniform on the part that gives b
    free, conditional = (cubic(torch.sigmoid((q.logits + torch.logit(w)) / temperature)) for w in (u, given))
    score = (cubic(b) - eta * conditional).detach() * q.log_prob(b)
    torch.testing.assert_close(found, gradients(score + eta * (free - conditional), q)[0])


@pytest.mark.parametrize("family", DISCRETE)
def test_rebar_without_its_control_variate_is_reinforce(family):
    draws, _ = draws_and_exact(Rebar(eta=0.0), family, degree=3, draws=100)
    generator = torch.Generator().manual_seed(7)
    q = repeated(one_image(family), 100)
    noise = standard_noise(family, (2, *q.parameters[0].shape), generator)
    plain = PlainReinforce()(Polynomial(family, 3), q, noise[0])
    torch.testing.assert_close(draws, gradients(plain, q)[0].flatten(1))


@pytest.mark.parametrize("family", DISCRETE)
def test_the_control_variate_of_rebar_lowers_the_variance(family):
    assert variance(Rebar(), family) < 0.7 * variance(Rebar(eta=0.0), family)


def test_indecater_of_one_latent_is_exact():
    generator = torch.Generator().manual_seed(0)
    q = random_posterior("categorical", 8, 1, 5, generator)
    weight = torch.randn(5, dtype=torch.float64, generator=generator)

    def loss(z: Tensor) -> Tensor:
        return (z @ weight).square().sum(-1)

    surrogate = ESTIMATORS["indecater"](loss, q, standard_noise("categorical", (8, 1, 5), generator))
    exact = ESTIMATORS["exact"](loss, q, torch.empty(0))
    torch.testing.assert_close(gradients(surrogate, q), gradients(exact, q))


def test_rloo_of_two_is_half_the_difference_of_losses_times_scores():
    generator = torch.Generator().manual_seed(0)
    q = random_posterior("bernoulli", 8, L, K, generator)
    noise = standard_noise("bernoulli", (2, 8, L), generator)
    cubic = Polynomial("bernoulli", 3)
    found = gradients(RLOO(k=2)(cubic, q, noise), q)[0]
    z, z_other = q.sample(noise)
    desired = 0.5 * (cubic(z) - cubic(z_other))[:, None] * (z - z_other)  # d log q / d logit = z - p
    torch.testing.assert_close(found, desired)
