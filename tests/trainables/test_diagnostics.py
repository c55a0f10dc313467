"""Diagnostics of gradients: compared with their definitions, in cohorts, in trainings and from checkpoints."""

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from oracles import expectation
from pydantic import ValidationError
from torch.testing import assert_close

from trainables.config import DiagnosticsConfig, TrainingConfig
from trainables.data import Images, load
from trainables.diagnose import diagnose
from trainables.diagnostics import DIAGNOSTICS, measure
from trainables.diagnostics.gradient_error import gradient_error
from trainables.diagnostics.gradient_gap import gradient_gap
from trainables.diagnostics.gradient_variance import gradient_variance
from trainables.latents import Bernoulli
from trainables.metrics import METRICS
from trainables.objective import VAE
from trainables.packing.cohort import Cohort
from trainables.renamed import RENAMED
from trainables.streams import Purpose, Streams
from trainables.training import CohortTraining, train

LATENTS = {
    "gaussian": {"family": "gaussian", "size": 5},
    "bernoulli": {"family": "bernoulli", "size": 5},
    "categorical": {"family": "categorical", "size": 2, "categories": 3},
}
BATCH = 16
VARIANCE = 0.05


def config(family, estimator, **changes) -> TrainingConfig:
    estimator = {"name": estimator} if isinstance(estimator, str) else estimator
    return TrainingConfig.model_validate(
        {
            "latent": LATENTS[family],
            "encoder": {"name": "mlp", "hidden": (12,)},
            "decoder": {"name": "linear"},
            "likelihood": {"name": "gaussian_fixed", "variance": VARIANCE},
            "estimator": estimator,
            "optim": {"name": "adam"},
            "epochs": 2,
            "batch_size": BATCH,
        }
        | changes
    )


def digits(tmp_path) -> Images:
    everything = load("digits", tmp_path)
    return Images(train=everything.train[:256], validation=everything.validation[:40])


def trained(images, *configs, epochs=1) -> Cohort:
    cohort = Cohort(configs, images, dtype=torch.float64)
    for _ in range(epochs):
        cohort.train_epoch()
    return cohort


@pytest.fixture
def images(tmp_path) -> Images:
    return digits(tmp_path)


class ByHand:
    """A member's networks as plain modules, its fixed batch, and the noise of each draw."""

    def __init__(self, cohort, member=0):
        self.config, (members,) = cohort.config, list(cohort.snapshots())
        self.model = VAE(self.config, (1, 8, 8)).double()
        self.model.load_state_dict(cohort.members.model_state(member))
        self.x = next(members.batches(BATCH))[member]
        self.streams = Streams([self.config.seed], dtype=torch.float64)

    def noise(self, draw):
        shape = (BATCH, *self.config.latent.z_shape)
        return getattr(self.streams, self.config.latent.noise)(shape, Purpose.DIAGNOSTIC, epoch=draw, step=0)[0]

    def loss(self, z):
        """-log N(x; W z + b, VARIANCE) [..., B] for codes [..., B, *z_shape]."""
        mean = z.flatten(z.dim() - len(self.config.latent.z_shape)) @ self.model.decoder.mu.weight.T
        residual = self.x.flatten(1) - mean - self.model.decoder.mu.bias
        return (residual.square() / (2 * VARIANCE) + 0.5 * math.log(2 * math.pi * VARIANCE)).sum(-1)

    def features(self):
        return self.model.encoder(self.x).detach().requires_grad_()


# --- the variance of the encoder's gradient ---------------------------------------------------------------------------


def test_gradient_variance_is_that_of_whole_gradients(images):
    cohort = trained(images, config("gaussian", "reparameterization"))
    hand, gradients = ByHand(cohort), []
    for draw in range(7):
        mean, log_variance = hand.model.encoder(hand.x).chunk(2, dim=1)
        loss = hand.loss(mean + torch.exp(log_variance / 2) * hand.noise(draw)).mean()
        parts = torch.autograd.grad(loss, list(hand.model.encoder.parameters()))
        gradients.append(torch.cat([part.flatten() for part in parts]))
    expected = torch.stack(gradients).var(0).sum()
    (members,) = cohort.snapshots()
    assert_close(gradient_variance(members, draws=7)["gradient_variance"], expected[None], rtol=1e-9, atol=0)


@pytest.mark.parametrize("log_term", ["taylor", "exact"])
def test_silent_gradients_vary_by_exactly_nothing(images, log_term):
    likelihood = {"name": "gaussian_precision", "log_term": log_term}
    cohort = trained(images, *[config("gaussian", "silent", likelihood=likelihood, seed=seed) for seed in (0, 1)])
    np.testing.assert_array_equal(measure(cohort, ["gradient_variance"])["gradient_variance"], [0, 0])


@pytest.mark.parametrize("family", LATENTS)
def test_only_silent_gradients_do_not_vary(images, family):
    noisy = "reparameterization" if family == "gaussian" else "st_gumbel_softmax"
    variance = {
        name: measure(trained(images, config(family, name)), ["gradient_variance"])["gradient_variance"].item()
        for name in ("silent", noisy, "reinforce")
    }
    assert variance["silent"] == 0
    assert 1e-3 < variance[noisy] < variance["reinforce"]


@pytest.mark.parametrize("anneal", ["encoder_gradient", "loss"])
def test_a_guide_takes_its_share_of_the_variance(images, anneal):
    def variance(rate):
        guide = {"annealing_rate": rate, "likelihood": {"name": "gaussian_fixed"}, "anneal": anneal}
        (members,) = trained(images, config("gaussian", "reparameterization", guide=guide), epochs=0).snapshots()
        return gradient_variance(members, draws=23)["gradient_variance"].item()

    # In the first epoch the silent gradient has weight 1 - rate, the estimator's gradient has weight rate.
    assert variance(0.0) == 0
    np.testing.assert_allclose(variance(0.25), 0.25**2 * variance(1.0), rtol=1e-9)


# --- the gradient gap -------------------------------------------------------------------------------------------------


def test_gradient_gap_is_the_distance_of_relaxed_and_straight_through_gradients(images):
    estimator = {"name": "decoupled_st_gs", "temperature_forward": 0.7, "temperature_backward": 1.6}
    cohort = trained(images, config("categorical", estimator))
    hand, gaps = ByHand(cohort), []
    for draw in range(5):
        features, noise = hand.features(), hand.noise(draw)
        logits = features.unflatten(1, (2, 3))
        (through_relaxed,) = torch.autograd.grad(hand.loss(torch.softmax(logits / 0.7 + noise, -1)).sum(), features)
        soft = torch.softmax(logits / 1.6 + noise, -1)
        hard = torch.nn.functional.one_hot((logits / 0.7 + noise).argmax(-1), 3) + soft - soft.detach()
        (through_discrete,) = torch.autograd.grad(hand.loss(hard).sum(), features)
        gaps.append((through_relaxed - through_discrete).square().sum(1).sqrt().mean())
    (members,) = cohort.snapshots()
    expected = torch.stack(gaps).mean()[None]
    assert_close(gradient_gap(members, draws=5)["gradient_gap"], expected, rtol=1e-9, atol=0)


def test_the_gap_is_that_of_the_estimators_own_relaxation(images):
    estimator = {"name": "st_gumbel_softmax", "temperature": 0.3, "scaling": "logits_and_noise"}
    cohort = trained(images, config("categorical", estimator))
    hand, gaps = ByHand(cohort), {0.3: [], 1.0: []}
    for draw in range(5):
        for temperature, found in gaps.items():
            features, noise = hand.features(), hand.noise(draw)
            logits = features.unflatten(1, (2, 3))
            soft = torch.softmax((logits + noise) / 0.3, -1)
            relaxed = torch.softmax((logits + noise) / temperature, -1)
            hard = torch.nn.functional.one_hot((logits + noise).argmax(-1), 3) + soft - soft.detach()
            through = [torch.autograd.grad(hand.loss(z).sum(), features)[0] for z in (relaxed, hard)]
            found.append((through[0] - through[1]).norm(dim=1).mean())
    (members,) = cohort.snapshots()
    measured = gradient_gap(members, draws=5)["gradient_gap"]
    assert_close(measured, torch.stack(gaps[0.3]).mean()[None], rtol=1e-9, atol=0)
    assert not torch.isclose(measured, torch.stack(gaps[1.0]).mean()[None], rtol=0.1)


def test_at_temperature_1_both_scalings_have_one_gap(images):
    gaps = [
        measure(
            trained(images, config("bernoulli", {"name": "st_gumbel_softmax", "temperature": t, "scaling": scaling})),
            ["gradient_gap"],
            draws=20,
        )["gradient_gap"]
        for t, scaling in ((1.0, "logits"), (1.0, "logits_and_noise"), (0.5, "logits"), (0.5, "logits_and_noise"))
    ]
    np.testing.assert_allclose(gaps[0], gaps[1], rtol=1e-12)
    assert gaps[0] > 1e-2
    assert abs(gaps[2] / gaps[3] - 1) > 0.1


# --- against the exact gradient ---------------------------------------------------------------------------------------


def test_gradient_error_compares_with_enumeration(images):
    cohort = trained(images, config("bernoulli", {"name": "st_gumbel_softmax", "temperature": 0.6}))
    hand, draws = ByHand(cohort), []
    features = hand.features()
    (exact,) = torch.autograd.grad(expectation(Bernoulli(features / 0.6), hand.loss).sum(), features)
    for draw in range(6):
        features = hand.features()
        soft = torch.sigmoid(features / 0.6 + hand.noise(draw))
        hard = (soft > 0.5).double() + soft - soft.detach()
        draws.append(torch.autograd.grad(hand.loss(hard).sum(), features)[0])
    estimates = torch.stack(draws)
    (members,) = cohort.snapshots()
    measured = gradient_error(members, draws=6)
    expected = {
        "exact_gradient_norm": exact.norm(),
        "gradient_spread": estimates.std(0).norm(),
        "gradient_bias_over_exact": (estimates.mean(0) - exact).norm() / exact.norm(),
        "gradient_spread_over_exact": estimates.std(0).norm() / exact.norm(),
        "gradient_cosine": torch.cosine_similarity(estimates.mean(0).flatten(), exact.flatten(), 0),
    }
    assert_close({name: value[0] for name, value in measured.items()}, expected, rtol=1e-9, atol=0)


def test_each_state_is_decoded_once_for_all_images_and_in_parts_that_fit_into_memory(images, monkeypatch):
    cohort, decoded = trained(images, config("bernoulli", "st_gumbel_softmax")), []
    cohort._model.decoder.register_forward_hook(lambda module, codes, output: decoded.append(len(codes[0])))
    (members,) = cohort.snapshots()
    whole = gradient_error(members, draws=2)
    assert decoded == [2**5, BATCH, BATCH]
    decoded.clear()
    monkeypatch.setattr("trainables.diagnostics.gradient_error._PIXELS_AT_ONCE", 12 * BATCH * 64)
    assert_close(gradient_error(members, draws=2), whole, rtol=1e-12, atol=0)
    assert decoded == [12, 12, 8, BATCH, BATCH]


@pytest.mark.parametrize("name", ["exact", "silent"])
def test_exact_gradients_have_no_error(images, name):
    measured = measure(trained(images, config("categorical", name)), ["gradient_error"])
    assert measured["gradient_bias_over_exact"] < 1e-12
    assert measured["gradient_spread"] == 0
    assert measured["gradient_spread_over_exact"] == 0
    np.testing.assert_allclose(measured["gradient_cosine"], 1, rtol=1e-12)


def floors(images, estimator) -> float:
    """The measured bias, relative to that of an unbiased estimator."""
    (members,) = trained(images, config("bernoulli", estimator)).snapshots()
    measured = gradient_error(members, draws=400)
    return (measured["gradient_bias_over_exact"] / (measured["gradient_spread_over_exact"] / math.sqrt(400))).item()


@pytest.mark.parametrize("name", ["reinforce", "rloo"])
def test_unbiased_estimators_show_the_floor(images, name):
    # Its square is a mean over 80 numbers with expectation 1, so the floor is about 1 with a standard deviation of 0.1.
    assert 0.6 < floors(images, name) < 1.4


@pytest.mark.parametrize("name", ["gumbel_softmax", "st_gumbel_softmax"])
def test_biased_estimators_stand_out(images, name):
    assert floors(images, name) > 4


# --- members, trainings, checkpoints ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(DIAGNOSTICS))
def test_a_member_measures_the_same_alone_or_packed(images, name):
    def member(seed, backward):
        estimator = {"name": "decoupled_st_gs", "temperature_backward": backward}
        return config("bernoulli", estimator, seed=seed)

    pair = [member(3, 1.0), member(4, 1.5)]
    packed = measure(trained(images, *pair), [name], draws=20)
    alone = [measure(trained(images, one), [name], draws=20) for one in pair]
    assert set(packed) == set(DIAGNOSTICS[name].metrics)
    for metric, values in packed.items():
        np.testing.assert_allclose(values, [one[metric].item() for one in alone], rtol=1e-9)
        assert values[0] != values[1]


def test_a_diverged_member_is_nan_and_harms_no_neighbour(images):
    def member(lr):
        return config("bernoulli", "reinforce", optim={"name": "adam", "lr": lr})

    calm = member(1e-3)
    # A learning rate that no configuration accepts, since it surely diverges.
    wild = calm.model_copy(update={"optim": calm.optim.model_copy(update={"lr": 1e200})})
    both = measure(trained(images, wild, calm, epochs=2), DIAGNOSTICS, draws=20)
    alone = measure(trained(images, member(1e-3), epochs=2), DIAGNOSTICS, draws=20)
    for name, values in both.items():
        assert np.isnan(values[0])
        np.testing.assert_allclose(values[1], alone[name].item(), rtol=1e-9)


def test_every_diagnostic_can_be_asked_for():
    assert set(DiagnosticsConfig.model_fields) - {"draws"} == set(DIAGNOSTICS)


def test_every_metric_is_shown_under_a_name_of_its_own():
    metrics = [metric for one in DIAGNOSTICS.values() for metric in one.metrics]
    assert set(metrics) <= METRICS.keys()
    assert len({METRICS[metric].title for metric in metrics}) == len(metrics)
    relative = {metric for metric in metrics if "exact gradient|" in METRICS[metric].title}
    assert relative == {"gradient_bias_over_exact", "gradient_spread_over_exact"}
    assert not RENAMED.keys() & METRICS.keys()


DUE = {"gradient_variance": [1, 3], "iw_bound": [2]}
due = partial(config, "bernoulli", "reinforce", epochs=4, diagnostics=DUE)


def test_measured_when_due_and_not_otherwise():
    (result,) = train([due()])
    (plain,) = train([due(diagnostics={})])
    assert result.status == "finished"
    measured = {name: np.flatnonzero(~np.isnan(result.history[name])) + 1 for name in DUE}
    assert {name: epochs.tolist() for name, epochs in measured.items()} == DUE
    assert result.metrics["gradient_variance"] == result.history["gradient_variance"][2]
    # Measuring changes nothing in the training.
    assert {name: result.history[name] for name in plain.history} == plain.history


def test_a_restored_training_keeps_its_measurements(tmp_path):
    whole = CohortTraining([due()], device="cpu", data_dir=tmp_path)
    for epoch in whole:
        if epoch == 1:
            checkpoint = whole.checkpoint()
    resumed = CohortTraining([due()], device="cpu", data_dir=tmp_path)
    resumed.restore(checkpoint)
    assert list(resumed) == [2, 3, 4]
    for name in DUE:
        np.testing.assert_array_equal(resumed.history()[name], whole.history()[name])


def test_a_checkpoint_of_an_older_program_goes_on_under_the_present_names(tmp_path):
    """Its history has former names and lacks newer metrics."""
    configs = [config("bernoulli", "reinforce", epochs=3, diagnostics={"gradient_error": [1, 3], "draws": 4})]
    older = CohortTraining(configs, device="cpu", data_dir=tmp_path)
    next(iter(older))
    before = dict(older._metrics)
    for new in ("gradient_spread", "exact_gradient_norm"):
        del older._metrics[new]
    for former, present in RENAMED.items():
        older._metrics[former] = older._metrics.pop(present)
    resumed = CohortTraining(configs, device="cpu", data_dir=tmp_path)
    resumed.restore(older.checkpoint())
    assert list(resumed) == [2, 3]
    history = resumed.history()
    assert history.keys() == before.keys()
    assert {values.shape for values in history.values()} == {(3, 1)}
    np.testing.assert_array_equal(history["gradient_spread_over_exact"][0], before["gradient_spread_over_exact"][0])
    assert np.flatnonzero(~np.isnan(history["gradient_spread"])).tolist() == [2]


def test_saved_members_measure_as_they_did_in_training(tmp_path):
    configs = [due(seed=0), due(seed=1)]
    training = CohortTraining(configs, device="cpu", data_dir=tmp_path)
    saved = {epoch: training.checkpoint() for epoch in training}
    for name, epoch in (("gradient_variance", 3), ("iw_bound", 2)):
        in_training = training.history()[name][epoch - 1]
        np.testing.assert_array_equal(diagnose(configs, saved[epoch], [name], data_dir=tmp_path)[name], in_training)


def test_results_measure_as_checkpoints_do(tmp_path):
    # An estimator without a running baseline, because results do not store one.
    configs = [config("bernoulli", "st_gumbel_softmax", seed=seed) for seed in (0, 1)]
    training = CohortTraining(configs, device="cpu", data_dir=tmp_path)
    assert list(training) == [1, 2]
    measured = [
        diagnose(configs, saved, DIAGNOSTICS, draws=20, data_dir=tmp_path)
        for saved in (training.checkpoint(), training.results(with_state=True))
    ]
    assert_close(measured[1], measured[0], rtol=0, atol=0)


def test_results_give_reinforce_a_baseline(tmp_path):
    configs = [config("bernoulli", "reinforce", epochs=8)]
    training = CohortTraining(configs, device="cpu", data_dir=tmp_path)
    assert len(list(training)) == 8
    by_checkpoint, by_results = (
        diagnose(configs, saved, ["gradient_variance"], data_dir=tmp_path)["gradient_variance"]
        for saved in (training.checkpoint(), training.results(with_state=True))
    )
    np.testing.assert_allclose(by_results, by_checkpoint, rtol=0.2)
    training.cohort.members.load_models([training.cohort.members.model_state(0)], epoch=8, running_loss=[0.0])
    without = measure(training.cohort, ["gradient_variance"])["gradient_variance"]
    assert abs(without / by_checkpoint - 1) > 0.2  # the comparison would notice a missing baseline


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda results: [results[1], results[0]], "those of the given configurations"),
        (lambda results: results[:1], "those of the given configurations"),
        (
            lambda results: [results[0], replace(results[1], status="failed")],
            "these are not finished: ",
        ),
        (lambda results: b"nonsense", "not a training checkpoint"),
    ],
)
def test_what_is_not_of_these_members_is_refused(tmp_path, change, message):
    configs = [config("bernoulli", "reinforce", epochs=1, seed=seed) for seed in (0, 1)]
    with pytest.raises(ValueError, match=message):
        diagnose(configs, change(train(configs)), ["iw_bound"], data_dir=tmp_path)


def test_results_without_state_are_refused(tmp_path):
    configs = [config("bernoulli", "reinforce", epochs=1)]
    training = CohortTraining(configs, device="cpu", data_dir=tmp_path)
    assert list(training) == [1]
    with pytest.raises(ValueError, match="have no state"):
        diagnose(configs, training.results(), ["iw_bound"], data_dir=tmp_path)


TOO_MANY = {"family": "categorical", "size": 5, "categories": 8}


@pytest.mark.parametrize(
    ("family", "estimator", "changes", "message"),
    [
        ("gaussian", "silent", {"diagnostics": {"gradient_error": [1]}}, "gradient_error needs the exact gradient"),
        ("categorical", "reinforce", {"latent": TOO_MANY, "diagnostics": {"gradient_error": [1]}}, r"8\*\*5"),
        ("gaussian", "silent", {"diagnostics": {"gradient_gap": [1]}}, "gradient_gap needs discrete latents"),
        ("bernoulli", "rloo", {"diagnostics": {"gradient_gap": [1]}}, "an estimator that draws one discrete code"),
        ("bernoulli", "gumbel_softmax", {"diagnostics": {"gradient_gap": [1]}}, "one discrete code.*'gumbel_softmax'"),
        ("bernoulli", "reinforce", {"diagnostics": {"iw_bound": [1, 3]}}, "due after epoch 3, but the training has 2"),
        ("bernoulli", "reinforce", {"diagnostics": {"iw_bound": [0]}}, "greater than or equal to 1"),
        ("bernoulli", "reinforce", {"diagnostics": {"gradient_size": [1]}}, "gradient_size"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_training(family, estimator, changes, message):
    with pytest.raises(ValidationError, match=message):
        config(family, estimator, **changes)


def test_what_cannot_be_measured_is_refused_afterwards(images):
    with pytest.raises(ValueError, match="gradient_gap needs discrete latents"):
        measure(trained(images, config("gaussian", "reparameterization"), epochs=0), ["gradient_gap"])


# --- Silent Gradients, Table 1 ----------------------------------------------------------------------------------------


def test_order_of_table_1_on_mnist(real_data):
    everything = load("mnist", real_data)
    images = Images(train=everything.train[:2000], validation=everything.validation[:200])

    def variance(family, name):
        changes = {
            "data": {"name": "mnist"},
            "latent": {"family": family, "size": 50},
            "encoder": {"name": "mlp", "hidden": (64,)},
            "likelihood": {"name": "gaussian_fixed", "variance": 0.01},
            "optim": {"name": "adamw", "lr": 1e-4, "beta2": 0.95},
            "batch_size": 64,
        }
        cohort = Cohort([config(family, name, **changes)], images)
        for _ in range(2):
            cohort.train_epoch()
        return measure(cohort, ["gradient_variance"])["gradient_variance"].item()

    assert variance("gaussian", "silent") == 0 < variance("gaussian", "reparameterization")
    assert variance("bernoulli", "silent") == 0
    assert 0 < 20 * variance("bernoulli", "gumbel_softmax") < variance("bernoulli", "reinforce")
