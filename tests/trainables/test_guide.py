"""A guide in training: annealing over epochs, freezing of single members, and its own optimizers."""

import re

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch.testing import assert_close

from trainables import objective
from trainables.config import Guide, TrainingConfig, explain
from trainables.data import Images
from trainables.diagnostics import measure
from trainables.estimators import ESTIMATORS
from trainables.likelihoods import gaussian
from trainables.packing.cohort import Cohort
from trainables.packing.step import Step

EVERY = [
    pytest.param(name, family, id=f"{name}-{family}")
    for name, estimator in sorted(ESTIMATORS.items())
    for family in sorted(estimator.families)
]


def config(family="gaussian", estimator="reparameterization", guide=None, seed=0, **changes):
    parts = {
        "latent": {"family": family, "size": 3} | ({"categories": 4} if family == "categorical" else {}),
        "encoder": {"name": "mlp", "hidden": [6]},
        "decoder": {"name": "mlp", "hidden": [7]},
        "likelihood": {"name": "gaussian_log_scale"},
        "estimator": {"name": estimator},
        "guide": guide if guide is not None else {},
        "optim": {"name": "adamw", "lr": 0.01, "weight_decay": 0.1},
        "epochs": 4,
        "batch_size": 5,
        "seed": seed,
    }
    if estimator == "silent":
        parts |= {"decoder": {"name": "linear"}, "likelihood": {"name": "gaussian_precision"}}
    return TrainingConfig.model_validate(parts | changes)


def strided(**guide):
    """Small networks with batch normalization, for 32x32 images."""
    return {
        "encoder": {"name": "strided", "channels": (2, 3, 4, 5)},
        "decoder": {"name": "strided", "channels": (5, 4, 3, 2)},
        "guide": guide,
    }


def images(size=4):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 1, size, size)).astype(np.uint8)
    return Images(train=pixels[:15], validation=pixels[15:])


def part(cohort, prefix):
    """Parameters and statistics of one part of the model."""
    selected = {
        name: value.clone()
        for name, value in cohort.members.tensors().items()
        if name.startswith(prefix + ".") and not name.endswith(".frozen")
    }
    assert selected
    return selected


def moved(before, after, member=...):
    """Names of the tensors that changed in any bit, of one member or of any."""
    return {name for name in before if not torch.equal(before[name][member], after[name][member])}


# --- configuration ---------------------------------------------------------------------------------------------------


def test_the_default_guide_is_the_papers_standalone_method():
    guide = Guide()
    assert (guide.annealing_rate, guide.freeze_epoch, guide.anneal) == (0.0, None, "encoder_gradient")
    assert guide.likelihood.name == "gaussian_precision"


@pytest.mark.parametrize(
    ("family", "guide", "message"),
    [
        ("gaussian", {"freeze_epoch": 0}, "guide.freeze_epoch"),
        ("gaussian", {"annealing_rate": -0.1}, "guide.annealing_rate"),
        ("gaussian", {"anneal": "both"}, "guide.anneal"),
        ("gaussian", {"likelihood": {"name": "bernoulli"}}, "guide needs .* 'bernoulli'"),
        ("gaussian", {"likelihood": {"name": "gaussian_log_scale"}}, "guide needs .* 'gaussian_log_scale'"),
        ("bernoulli", {"likelihood": {"name": "gaussian_precision", "log_term": "exact"}}, "use 'taylor'"),
    ],
)
def test_guides_that_cannot_work_are_refused(family, guide, message):
    estimator = "reparameterization" if family == "gaussian" else "straight_through"
    with pytest.raises(ValidationError) as error:
        config(family, estimator, guide)
    assert re.search(message, explain(error.value))


# --- annealing -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("anneal", ["encoder_gradient", "loss"])
def test_standalone_silent_gradients_keep_the_estimator_away_from_the_encoder(anneal):
    def encoder_after(estimator, rate):
        cohort = Cohort(
            [config("bernoulli", estimator, {"annealing_rate": rate, "anneal": anneal})], images(), dtype=torch.float64
        )
        cohort.train_epoch()
        return part(cohort, "encoder")

    assert_close(encoder_after("straight_through", 0.0), encoder_after("gumbel_softmax", 0.0), rtol=1e-9, atol=1e-12)
    annealed = encoder_after("straight_through", 0.5), encoder_after("gumbel_softmax", 0.5)
    assert moved(*annealed, member=0) == annealed[0].keys()


@pytest.mark.parametrize(("anneal", "trains"), [("encoder_gradient", True), ("loss", False)])
def test_with_weighted_losses_a_silent_weight_of_1_leaves_the_decoder_untrained(anneal, trains):
    own = config(guide={"annealing_rate": 0.0, "anneal": anneal}, optim={"name": "adam"})
    cohort = Cohort([own], images())
    before = part(cohort, "decoder")
    cohort.train_epoch()
    assert moved(before, part(cohort, "decoder"), member=0) == (before.keys() if trains else set())


def test_members_of_one_cohort_anneal_at_their_own_rates():
    rates = (0.0, 0.4, 2.0)
    configs = [config(guide={"annealing_rate": rate}) for rate in rates]
    together = Cohort(configs, images(), dtype=torch.float64)
    alone = [Cohort([own], images(), dtype=torch.float64) for own in configs]
    for _ in range(2):
        for cohort in (together, *alone):
            cohort.train_epoch()
    for member, cohort in enumerate(alone):
        assert_close(together.members.model_state(member), cohort.members.model_state(0), rtol=1e-9, atol=1e-12)
    assert moved(together.members.model_state(0), together.members.model_state(1))


# --- freezing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "radam"])
@pytest.mark.parametrize("packed", [True, False])
def test_frozen_encoders_and_their_guides_stop_bit_for_bit_and_decoders_go_on(optimizer, packed):
    # A zero gradient is not enough: momentum and weight decay would still move the parameters.
    optim = {"name": optimizer, "lr": 1e-5, "weight_decay": 0.3}
    freezes = (1, 2, 3, None)
    cohort = Cohort(
        [config(seed=seed, optim=optim, **strided(freeze_epoch=epoch)) for seed, epoch in enumerate(freezes)],
        images(32),
        dtype=torch.float64,
        packed=packed,
    )
    for epoch in range(1, 5):
        encoder, decoder, guide = (part(cohort, name) for name in ("encoder", "decoder", "guide"))
        cohort.train_epoch()
        for member, freeze in enumerate(freezes):
            still = freeze is not None and epoch >= freeze
            assert moved(encoder, part(cohort, "encoder"), member) == (set() if still else encoder.keys())
            assert moved(decoder, part(cohort, "decoder"), member) == decoder.keys()
            assert moved(guide, part(cohort, "guide"), member) == (set() if still else guide.keys())


def test_a_member_freezes_in_company_as_it_does_alone():
    freezes = (2, 3, None)
    configs = [config(seed=seed, **strided(freeze_epoch=epoch)) for seed, epoch in enumerate(freezes)]
    together = Cohort(configs, images(32), dtype=torch.float64, packed=True)
    alone = [Cohort([own], images(32), dtype=torch.float64) for own in configs]
    for _ in range(4):
        metrics = together.train_epoch()
        for member, cohort in enumerate(alone):
            for name, (value,) in cohort.train_epoch().items():  # in train_loss, a guide that is over has no part
                assert metrics[name][member] == pytest.approx(value, rel=1e-7), name
    for member, cohort in enumerate(alone):
        assert_close(together.members.model_state(member), cohort.members.model_state(0), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("estimator", "family"), EVERY)
def test_every_estimator_trains_the_decoder_of_a_frozen_encoder(estimator, family):
    cohort = Cohort([config(family, estimator, {"freeze_epoch": 1})], images())
    encoder, decoder, guide = (part(cohort, name) for name in ("encoder", "decoder", "guide"))
    cohort.train_epoch()
    assert cohort.diverged_epoch == [None]
    assert moved(encoder, part(cohort, "encoder"), 0) == set()
    assert moved(decoder, part(cohort, "decoder"), 0) == decoder.keys()
    assert moved(guide, part(cohort, "guide"), 0) == set()


# --- the end of a guide ----------------------------------------------------------------------------------------------

ENDS = {
    "frozen": {"freeze_epoch": 2},
    "annealed": {"annealing_rate": 0.5},
    "both": {"freeze_epoch": 3, "annealing_rate": 0.5},
}
"""Guides that are over from epoch 2 on."""


def never_over(monkeypatch):
    """Makes guides train to the end although they are over."""
    honest, still = objective.epoch_knobs, Cohort._still
    monkeypatch.setattr(
        objective, "epoch_knobs", lambda *args: (k := honest(*args)) | {"guide.over": torch.zeros_like(k["guide.over"])}
    )
    monkeypatch.setattr(Cohort, "_still", lambda *args: {"encoder": still(*args)["encoder"]})


@pytest.mark.parametrize("anneal", ["encoder_gradient", "loss"])
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("packed", [True, False])
def test_a_guide_that_is_over_is_missed_by_train_loss_alone(monkeypatch, packed, end, anneal):
    def history():
        guides = (ENDS[end], {"annealing_rate": 0.1})  # the second is never over
        configs = [config(seed=seed, **strided(**guide, anneal=anneal)) for seed, guide in enumerate(guides)]
        cohort = Cohort(configs, images(32), packed=packed)
        return cohort, [cohort.train_epoch() for _ in range(4)]

    stopped, short = history()
    never_over(monkeypatch)
    trained, long = history()
    for name in short[0].keys() - {"train_loss"}:
        assert [metrics[name].tolist() for metrics in short] == [metrics[name].tolist() for metrics in long], name
    for prefix in ("encoder", "decoder"):
        assert moved(part(stopped, prefix), part(trained, prefix)) == set()
    assert moved(part(stopped, "guide"), part(trained, "guide"), 0)
    assert moved(part(stopped, "guide"), part(trained, "guide"), 1) == set()


@pytest.mark.parametrize("end", [{"freeze_epoch": 1}, {"annealing_rate": 1.0}, {"freeze_epoch": 1, "anneal": "loss"}])
@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("poison", [torch.inf, torch.nan])
def test_a_dead_guide_that_is_over_harms_nobody(end, packed, poison):
    def after(value):
        anneal = {"anneal": end.get("anneal", "encoder_gradient")}
        configs = [config(guide=end), config(guide=anneal, seed=1)]
        cohort = Cohort(configs, images(), packed=packed)
        for group in ("guide.mu", "guide.alpha"):
            if value is not None:
                cohort.members.groups[group].flat[0] = value
        return cohort, [cohort.train_epoch() for _ in range(2)]

    (poisoned, metrics), (healthy, expected) = after(poison), after(None)
    assert poisoned.diverged_epoch == [None, None]
    for one, other in zip(metrics, expected, strict=True):
        assert {name: values.tolist() for name, values in one.items()} == {
            name: values.tolist() for name, values in other.items()
        }
    for prefix in ("encoder", "decoder"):
        assert moved(part(poisoned, prefix), part(healthy, prefix)) == set()


@pytest.mark.parametrize("end", [{"freeze_epoch": 1}, {"annealing_rate": 1.0}])
def test_a_guide_that_is_over_is_harmless_at_certain_codes(end):
    """If every bit is certainly 0, a decoder without biases has the precision 0, with a logarithm of minus infinity."""
    own = [config("bernoulli", "straight_through", end), config("bernoulli", "straight_through", seed=1)]
    cohort = Cohort(own, images(), packed=True)
    for name, value in cohort.members.parameters_of(slice(0, 1)).items():
        if name.startswith("encoder."):
            value.fill_(-1e9 if name.endswith("2.bias") else 0.0)
    before = part(cohort, "encoder")
    cohort.train_epoch()
    assert cohort.diverged_epoch == [None, None]
    assert all(torch.isfinite(value).all() for value in part(cohort, "encoder").values())
    assert moved(before, part(cohort, "encoder"), 1) == before.keys()


def test_no_guide_is_computed_once_all_of_a_stack_are_over(monkeypatch):
    computed = []
    honest = gaussian.expected_log_likelihood
    monkeypatch.setattr(
        gaussian, "expected_log_likelihood", lambda *args, **more: computed.append(1) or honest(*args, **more)
    )
    configs = [config(guide={"freeze_epoch": 2}), config(guide={"annealing_rate": 0.4}, seed=1)]
    cohort, counts = Cohort(configs, images(), packed=True), []
    for _ in range(4):
        computed.clear()
        cohort.train_epoch()
        counts.append(len(computed))
    assert counts == [3, 3, 0, 0]  # three batches an epoch; the second guide has weight 0 from epoch 3 on


def test_the_variance_of_the_gradient_is_measured_beside_a_dead_guide():
    cohort = Cohort([config(guide={"annealing_rate": 1.0})], images())
    cohort.train_epoch()
    cohort.members.groups["guide.mu"].flat.fill_(torch.inf)
    assert 0 < measure(cohort, ["gradient_variance"])["gradient_variance"].item() < np.inf


def test_a_frozen_encoder_survives_a_checkpoint():
    def fresh():
        return Cohort([config(**strided(freeze_epoch=2)), config(seed=1, **strided())], images(32), packed=True)

    through, resumed = fresh(), fresh()
    for _ in range(2):
        through.train_epoch()
    resumed.members.load_state(through.members.state(), through.epoch)
    assert through.train_epoch()["elbo"].tolist() == resumed.train_epoch()["elbo"].tolist()
    assert moved(part(through, "encoder"), part(resumed, "encoder")) == set()


# --- optimizers ------------------------------------------------------------------------------------------------------


def test_both_parts_of_the_guide_have_learning_rates_of_their_own():
    rates = {"encoder": 1e-3, "decoder": 1e-3, "guide.mu": 1e-4, "guide.alpha": 1e-2}
    own = config(
        guide={"lr_mu": rates["guide.mu"], "lr_alpha": rates["guide.alpha"]},
        optim={"name": "adam", "lr": 1e-3, "eps": 1e-20},
        batch_size=15,
    )
    cohort = Cohort([own], images(), dtype=torch.float64)
    before = {name: group.flat.clone() for name, group in cohort.members.groups.items()}
    cohort.train_epoch()  # one step, and the first step of Adam is lr * sign(gradient)
    for name, rate in rates.items():
        step = (cohort.members.groups[name].flat - before[name]).abs()
        assert_close(step.max(), torch.tensor(rate, dtype=torch.float64), rtol=1e-6, atol=0)
        assert (step.gt(0.5 * rate).double().mean()) > 0.5


def test_an_infinite_gradient_does_not_move_a_frozen_encoder_among_moving_ones(monkeypatch):
    cohort = Cohort([config(guide={"freeze_epoch": 1}), config(seed=1)], images(), packed=True)
    before = part(cohort, "encoder")
    honest = Step.gradients

    def overflowing(*args):
        loss, gradients = honest(*args)
        gradients["encoder"][0] = torch.inf
        return loss, gradients

    monkeypatch.setattr(Step, "gradients", overflowing)
    cohort.train_epoch()
    after = part(cohort, "encoder")
    assert all(torch.equal(after[name][0], before[name][0]) for name in before)
    assert not all(torch.equal(after[name][1], before[name][1]) for name in before)
