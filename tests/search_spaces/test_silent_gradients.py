import itertools
import math

import pytest
import torch

from search_spaces import get_sweep
from search_spaces.published import published
from search_spaces.scale import DAY, SMOKE, STAND_INS
from search_spaces.silent_gradients import STUDIES
from search_spaces.space import Sweep
from sweeps.planning.plan import Plan
from sweeps.planning.unfold import unfold
from sweeps.records.ledger import Ledger, Row, now
from sweeps.records.storage import Storage
from trainables.config import TrainingConfig
from trainables.objective import VAE
from trainables.training import train

STUDY = {study.name: study for study in STUDIES}
SWEEP = Sweep("sg", "Silent Gradients", STUDIES)
IMAGES = {"mnist": (1, 28, 28), "imagenet32": (3, 32, 32), "cifar10": (3, 32, 32)}
BASELINES = ("Reparameterization", "Gumbel-Softmax", "REINFORCE")


def configs(name):
    """(labels, configuration) of a study's cells."""
    return [(labels, TrainingConfig.model_validate(config)) for labels, config in STUDY[name].cells()]


def values(name, path, **labels):
    """All values of a field in a study's cells with these labels."""
    return {config.flat()[path] for found, config in configs(name) if labels.items() <= found.items()}


# --- Compared configurations ------------------------------------------------------------------------------------------


def test_it_is_part_of_the_paper_grid():
    names = [study.name for study in get_sweep("paper_grid").studies]
    assert set(STUDY) <= set(names)


@pytest.mark.parametrize("scale", [SMOKE, DAY])
def test_at_every_scale_encoders_train_before_they_freeze(scale):
    epochs = {scale.config(config)["guide"]["freeze_epoch"] for study in STUDIES for config in guided(study)}
    assert min(epochs) == 2


def guided(study):
    return [config for _, config in study.cells() if "guide" in config]


RATES = {1e-4, 5e-4, 1e-5, 5e-5}


def test_the_grid_of_the_fixed_variance_is_that_of_c_3_3():
    cells = [
        (labels["method"], config.likelihood.variance, config.optim.lr) for labels, config in configs("sg/table2_grid")
    ]
    methods = {"Silent Gradients, continuous", "Silent Gradients, discrete", *BASELINES}
    assert len(cells) == len(set(cells))
    assert set(cells) == set(itertools.product(methods, {0.1, 0.05, 0.01}, RATES))


@pytest.mark.parametrize("data_set", IMAGES)
def test_the_grids_of_the_learned_variance_are_those_of_c_3_4(data_set):
    stage = f"sg/table3_{data_set}"
    assert values(f"{stage}_lr", "optim.lr") == RATES
    grid = {(c.guide.lr_mu, c.guide.lr_alpha) for _, c in configs(f"{stage}_linear_lr")}
    assert grid == set(itertools.product(RATES, RATES))
    freeze_epochs = {50, 80, 100, 150} if data_set == "imagenet32" else {50, 80, 100, 150, 200}
    for method in BASELINES:
        found = [
            (c.guide.annealing_rate, c.guide.freeze_epoch)
            for labels, c in configs(f"{stage}_annealing")
            if labels["method"] == method
        ]
        assert len(found) == len(set(found))
        assert set(found) == set(itertools.product({1e-2, 5e-2, 1e-3, 5e-3}, freeze_epochs))
    for method in ("Silent Gradients, continuous", "Silent Gradients, discrete"):
        assert values(f"{stage}_annealing", "guide.freeze_epoch", method=method) == freeze_epochs
        assert values(f"{stage}_annealing", "guide.annealing_rate", method=method) == {0.0}


def test_the_freeze_epoch_that_imagenet_lacks_is_never_as_one_that_it_has():
    (epochs,) = values("sg/table3_imagenet32_annealing", "epochs")
    assert sum(epoch > epochs for epoch in values("sg/table3_imagenet32_annealing", "guide.freeze_epoch")) == 1


@pytest.mark.parametrize(
    ("prefix", "epochs", "batch_size", "latents"),
    [
        ("sg/table1", {500}, 64, 200),
        ("sg/table2", {500}, 64, 200),
        ("sg/table3_mnist", {200, 300}, 64, 200),
        ("sg/table3_imagenet32", {100}, 128, 1024),
        ("sg/table3_cifar10", {2000}, 256, 1024),
    ],
)
def test_every_stage_trains_as_printed(prefix, epochs, batch_size, latents):
    names = [name for name in STUDY if name == prefix or name.startswith(f"{prefix}_")]
    for config in (config for name in names for _, config in configs(name)):
        assert config.epochs in epochs
        assert config.batch_size == batch_size
        assert config.latent.size == latents
        assert (config.optim.name, config.optim.beta1, config.optim.beta2) == ("adamw", 0.9, 0.95)
        assert config.objective.kl_weight == 1
        assert config.data.pixels == "dequantize"


@pytest.mark.parametrize("stage", ["sg/table3_mnist_lr", "sg/table3_mnist_annealing", "sg/table3_mnist"])
def test_on_mnist_reinforce_alone_trains_for_300_epochs(stage):
    for labels, config in configs(stage):
        assert config.epochs == (300 if labels["method"] == "REINFORCE" else 200)


def test_the_gradients_variance_is_measured_when_the_paper_did():
    for name in ("sg/table1", "sg/table2"):
        assert {config.diagnostics.gradient_variance for _, config in configs(name)} == {(10, 200, 500)}


@pytest.mark.parametrize("data_set", IMAGES)
def test_the_bits_can_carry_the_kl_that_is_printed(data_set):
    sizes = values(f"sg/table3_{data_set}", "latent.size")
    discrete = [
        number.value
        for number in published(f"sg_table3_{data_set}")
        if number.metric == "kl"
        and number.labels["method"] in ("Silent Gradients, discrete", "Gumbel-Softmax", "REINFORCE")
    ]
    assert len(discrete) == 5
    assert max(discrete) < min(sizes) * math.log(2)


@pytest.mark.parametrize("name", STUDY)
def test_claims_are_of_rows_of_their_study(name):
    rows = [labels for labels, _ in STUDY[name].cells()]
    for claim in STUDY[name].claims:
        for side in (claim.better, claim.worse):
            assert sum(side.items() <= row.items() for row in rows) == 1, (claim, side)


@pytest.mark.parametrize("name", [name for name in STUDY if STUDY[name].claims])
def test_the_papers_own_numbers_bear_out_every_claim(name):
    def printed(labels, claim):
        metric = claim.metric or STUDY[name].metric
        found = [n for n in published(STUDY[name].published) if (n.labels, n.metric) == (labels, metric)]
        if claim.reaches is not None:
            return min(n.epoch for n in found if n.value == claim.reaches)
        return max(found, key=lambda n: math.inf if n.epoch is None else n.epoch).value

    for claim in STUDY[name].claims:
        better, worse = printed(claim.better, claim), printed(claim.worse, claim)
        assert better > worse if claim.metric == "kl" else better < worse, claim


# --- Winners passed from stage to stage -------------------------------------------------------------------------------


def pretended(member):
    """A made-up row of a member: its metric depends on the configuration only."""
    value = int(member.config.key(), 16) / 16**24
    return Row(
        key=member.key,
        status="finished",
        epochs=member.config.epochs,
        wall_s=1.0,
        ended=now(),
        config=member.config.model_dump(mode="json"),
        metrics={"bits_per_dim": value, "gradient_variance": value},
        history={},
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The members of every study by name, and a made-up row for each, as if all had been trained."""
    plan, rows = Plan(SWEEP), {}
    unfolding = unfold(plan, Ledger(Storage(str(tmp_path_factory.mktemp("runs")), "sg")))
    for study in plan.studies:
        unfolding[study.name].more(rows, set(rows))
        assert not unfolding[study.name].unmade()
        rows |= {member.key: pretended(member) for member in unfolding[study.name].members()}
    return {name: found.members() for name, found in unfolding.items()}, rows


def best(members, rows, **labels):
    """The best configuration with these labels."""
    found = [member for member in members if labels.items() <= member.labels.items()]
    return min(found, key=lambda member: rows[member.key].metrics["bits_per_dim"]).config


def test_members_are_as_many_as_the_header_says(trained):
    members, rows = trained
    seen, new = set(), {}
    for name, found in members.items():
        keys = {member.key for member in found}
        new[name] = (len(keys), len(keys - seen))
        seen |= keys
    expected = {"sg/table2_grid": (60, 60), "sg/table1": (25, 25), "sg/table2": (25, 0)}
    for data_set in IMAGES:
        grid = (56, 54) if data_set == "imagenet32" else (70, 68)
        stage = f"sg/table3_{data_set}"
        expected |= {
            f"{stage}_lr": (20, 20),
            f"{stage}_linear_lr": (32, 30),
            f"{stage}_annealing": grid,
            stage: (40, 40),
        }
    assert new == expected
    assert len(rows) == 545


@pytest.mark.parametrize("name", ["sg/table1", "sg/table2"])
def test_tables_1_and_2_have_each_methods_best_learning_rate_at_the_variance_0_01(trained, name):
    members, rows = trained
    assert len(members[name]) == 25
    for member in members[name]:
        labels = {"method": member.labels["method"], "likelihood.variance": 0.01}
        assert member.config.likelihood.variance == 0.01
        assert member.config.optim.lr == best(members["sg/table2_grid"], rows, **labels).optim.lr


@pytest.mark.parametrize("data_set", IMAGES)
def test_a_baseline_without_silent_gradients_is_the_best_of_its_learning_rates(trained, data_set):
    members, rows = trained
    stage = f"sg/table3_{data_set}"
    found = [member for member in members[stage] if member.labels["sg"] == "w/o SG"]
    assert len(found) == 3 * 5
    for member in found:
        config = best(members[f"{stage}_lr"], rows, method=member.labels["method"])
        assert config.guide is None
        assert member.config == config.model_copy(update={"seed": member.config.seed})


@pytest.mark.parametrize("data_set", IMAGES)
def test_silent_gradients_are_those_of_the_best_schedule_on_the_best_rates(trained, data_set):
    members, rows = trained
    stage = f"sg/table3_{data_set}"
    found = [member for member in members[stage] if member.labels["sg"] == "w/ SG"]
    assert len(found) == 5 * 5
    for member in found:
        method = member.labels["method"]
        config = best(members[f"{stage}_annealing"], rows, method=method)
        assert member.config == config.model_copy(update={"seed": member.config.seed})
        assert config.optim.lr == best(members[f"{stage}_lr"], rows, method=method).optim.lr
        linear = best(members[f"{stage}_linear_lr"], rows, latents=member.labels["latents"]).guide
        assert (config.guide.lr_mu, config.guide.lr_alpha) == (linear.lr_mu, linear.lr_alpha)


# --- Every architecture trains ----------------------------------------------------------------------------------------


def architectures():
    """One configuration of each network, with and without a linear decoder as guide."""
    found = {}
    for _, config in (each for name in STUDY for each in configs(name)):
        kind = (config.data.name, config.latent.family, config.decoder.name, config.guide is not None)
        found.setdefault(kind, config)
    return found


ARCHITECTURES = architectures()


@pytest.mark.parametrize("kind", ARCHITECTURES, ids=lambda kind: "-".join(map(str, kind)))
def test_networks_accept_the_images_of_their_data_set(kind):
    config, shape = ARCHITECTURES[kind], IMAGES[kind[0]]
    with torch.device("meta"):
        model = VAE(config, shape)
        q = config.latent.posterior(model.encoder(torch.empty(2, *shape)))
        output = model.decoder(torch.empty(2, config.latent.size))
    assert q.parameters[0].shape == (2, config.latent.size)
    assert output.shape == (2, config.likelihood.outputs, math.prod(shape))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ARCHITECTURES, ids=lambda kind: "-".join(map(str, kind)))
def test_every_network_trains(kind, tmp_path):
    config = ARCHITECTURES[kind]
    small = config.model_dump() | {"epochs": 2, "batch_size": 32, "diagnostics": {}}
    small["data"] |= {"name": STAND_INS[config.data.name], "limit": 64}
    members = [TrainingConfig.model_validate(small | {"seed": seed}) for seed in (0, 1)]
    results = train(members, device="cpu", data_dir=tmp_path)
    assert [result.status for result in results] == ["finished", "finished"]
    assert results[0].metrics["bits_per_dim"] != results[1].metrics["bits_per_dim"]
