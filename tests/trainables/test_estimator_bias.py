"""Unbiased estimators agree with the enumerated gradient; the same check rejects biased ones.

The loss is cubic in the code, because straight-through is exact for linear losses and ReinMax for quadratic ones.
"""

import pytest
import torch
from oracles import (
    CATEGORIES,
    LATENTS,
    Polynomial,
    draws_and_exact,
    expectation,
    gradients,
    one_image,
    random_posterior,
    repeated,
    standard_errors_off,
    standard_noise,
)
from torch import Tensor

from trainables.estimators import ESTIMATORS, Estimator
from trainables.estimators.decoupled import DecoupledSTGS
from trainables.estimators.gumbel_rao import GumbelRao
from trainables.estimators.gumbel_softmax import GumbelSoftmax, STGumbelSoftmax
from trainables.estimators.reinmax import DecoupledReinMax, ReinMax
from trainables.estimators.straight_through import GappedStraightThrough

DRAWS = 100_000
LIMIT = 5.0
"""The largest accepted distance, in standard errors."""

UNBIASED = [(e, family) for e in ESTIMATORS.values() if e.bias == "unbiased" for family in sorted(e.families)]
DISCRETE = ("bernoulli", "categorical")
SETTINGS = (
    ESTIMATORS["straight_through"],
    GumbelSoftmax(),
    GumbelSoftmax(temperature=0.5, scaling="logits"),
    STGumbelSoftmax(),
    STGumbelSoftmax(temperature=0.5, scaling="logits_and_noise"),
    DecoupledSTGS(temperature_backward=0.5),
    DecoupledSTGS(temperature_backward=3.0),
    ReinMax(),
    DecoupledReinMax(temperature_forward=0.5, temperature_backward=2.0),
    GumbelRao(k=2),
    GappedStraightThrough(),
)
"""Biased estimators at settings that show it; the others are tried at their defaults."""
OTHERS = [e for e in ESTIMATORS.values() if e.bias == "biased" and e.name not in {one.name for one in SETTINGS}]
BIASED = [(e, family) for e in (*SETTINGS, *OTHERS) for family in DISCRETE if family in e.families]


@pytest.mark.parametrize(("estimator", "family"), UNBIASED, ids=lambda v: getattr(v, "name", v))
def test_unbiased_estimators_agree_with_the_enumerated_gradient(estimator, family):
    assert standard_errors_off(*draws_and_exact(estimator, family, degree=3, draws=DRAWS)) < LIMIT


@pytest.mark.parametrize(("estimator", "family"), BIASED, ids=str)
def test_biased_estimators_do_not(estimator, family):
    assert estimator.bias == "biased"
    assert standard_errors_off(*draws_and_exact(estimator, family, degree=3, draws=DRAWS)) > LIMIT


@pytest.mark.parametrize("name", ["reparameterization", "reinforce", "rloo"])
def test_the_check_rejects_the_gradient_of_a_slightly_different_gaussian(name):
    draws, exact = draws_and_exact(ESTIMATORS[name], "gaussian", degree=3, draws=DRAWS)
    assert standard_errors_off(draws, 1.1 * exact) > LIMIT


@pytest.mark.parametrize("family", ["bernoulli", "categorical"])
def test_exact_is_the_enumerated_gradient(family):
    loss, q = (
        Polynomial(family, degree=3),
        random_posterior(family, 3, LATENTS, CATEGORIES, torch.Generator().manual_seed(0)),
    )
    surrogate = ESTIMATORS["exact"](loss, q, torch.empty(0))
    desired = expectation(q, loss)
    torch.testing.assert_close(surrogate, desired, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(gradients(surrogate, q), gradients(desired, q), rtol=1e-10, atol=1e-10)


# --- losses for which biased estimators are exact ---------------------------------------------------------------------


@pytest.mark.parametrize("family", ["bernoulli", "categorical"])
@pytest.mark.parametrize("estimator", [ReinMax(), DecoupledReinMax(temperature_forward=0.6, temperature_backward=0.6)])
def test_reinmax_is_unbiased_for_quadratic_losses(estimator, family):
    assert standard_errors_off(*draws_and_exact(estimator, family, degree=2, draws=DRAWS)) < LIMIT


@pytest.mark.parametrize("family", ["bernoulli", "categorical"])
@pytest.mark.parametrize(
    "estimator",
    [
        ESTIMATORS["straight_through"],
        ReinMax(temperature=2.0),
        DecoupledReinMax(temperature_forward=0.6, temperature_backward=1.5),
    ],
    ids=str,
)
def test_straight_through_and_other_temperatures_are_not(estimator, family):
    assert standard_errors_off(*draws_and_exact(estimator, family, degree=2, draws=DRAWS)) > LIMIT


@pytest.mark.parametrize("family", ["bernoulli", "categorical"])
def test_straight_through_is_unbiased_for_linear_losses(family):
    draws, exact = draws_and_exact(ESTIMATORS["straight_through"], family, degree=1, draws=100)
    # The gradient of a linear loss does not depend on the draw, so the standard error is 0.
    torch.testing.assert_close(draws, exact.expand_as(draws))


# --- the surrogate's value --------------------------------------------------------------------------------------------

TEMPERED = [
    (estimator, family)
    for estimator in (
        ESTIMATORS["straight_through"],
        STGumbelSoftmax(temperature=0.5),
        STGumbelSoftmax(temperature=0.5, scaling="logits_and_noise"),
        DecoupledSTGS(temperature_forward=0.5, temperature_backward=2.0),
        DecoupledReinMax(temperature_forward=2.0),
        GumbelRao(temperature=0.5, k=2),
        GumbelRao(temperature=0.5, k=2, scaling="logits"),
        ReinMax(temperature=2.0),
        GappedStraightThrough(temperature=0.5),
    )
    for family in ("bernoulli", "categorical")
]


def values_and_expectation(estimator: Estimator, family: str) -> tuple[Tensor, Tensor]:
    """Values [DRAWS, 1] of the surrogate, and the expected loss under `sampled(q)` [1]."""
    loss, q = Polynomial(family, degree=3), one_image(family)
    rows = repeated(q, DRAWS)
    shape = estimator.noise_shape(tuple(rows.parameters[0].shape))
    noise = standard_noise(family, shape, torch.Generator().manual_seed(8))
    return estimator(loss, rows, noise).detach()[:, None], expectation(estimator.sampled(q, {}), loss).detach()


@pytest.mark.parametrize(("estimator", "family"), UNBIASED + TEMPERED, ids=str)
def test_value_is_the_loss_at_draws_of_the_sampled_distribution(estimator, family):
    assert standard_errors_off(*values_and_expectation(estimator, family)) < LIMIT


@pytest.mark.parametrize("family", ["bernoulli", "categorical"])
@pytest.mark.parametrize("scaling", ["logits", "logits_and_noise"])
def test_value_of_a_relaxed_code_is_not(scaling, family):
    estimator = GumbelSoftmax(temperature=0.5, scaling=scaling)
    assert standard_errors_off(*values_and_expectation(estimator, family)) > LIMIT
