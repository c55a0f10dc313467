import pytest

from search_spaces import get_sweep
from search_spaces.discrete_vae import LEARNING_RATES, METHODS, STUDIES, TEMPERATURES
from search_spaces.scale import STAND_INS
from search_spaces.space import Sweep, holds
from sweeps.planning.plan import Overrides, Plan
from trainables.config import TrainingConfig
from trainables.training import train

STUDY = {study.name: study for study in STUDIES}
SWEEP = Sweep("dvae", "Discrete VAEs", STUDIES)
TABLES = ("dvae/tutorial_4x8", "dvae/reinmax_4x8", "dvae/reinmax_12x16")


def configs(name):
    """(labels, configuration) of a study's cells."""
    return [(labels, TrainingConfig.model_validate(config)) for labels, config in STUDY[name].cells()]


def test_it_is_part_of_the_paper_grid_which_has_more_than_four_thousand_members():
    grid = get_sweep("paper_grid")
    assert set(STUDY) <= {study.name for study in grid.studies}
    assert sum(len(list(study.cells())) * len(study.seeds) for study in grid.studies) > 4000


MEMBERS = {
    "dvae/tutorial_4x8_rates": 104,
    "dvae/tutorial_4x8": 60,
    "dvae/reinmax_4x8_rates": 100,
    "dvae/reinmax_4x8": 50,
    "dvae/reinmax_12x16_rates": 100,
    "dvae/reinmax_12x16": 50,
}


@pytest.mark.parametrize("name", STUDY)
def test_members_are_as_many_as_the_header_says(name):
    assert len(configs(name)) * len(STUDY[name].seeds) == MEMBERS[name]


def test_the_header_adds_up():
    assert sum(MEMBERS.values()) == 464


def test_the_tutorial_sees_bits_and_the_protocol_grey_pixels():
    for name in STUDY:
        pixels = "binarize" if "tutorial" in name else "unit"
        assert {config.data.pixels for _, config in configs(name)} == {pixels}


@pytest.mark.parametrize(
    ("name", "latents", "categories", "optimizer"),
    [("tutorial_4x8", 4, 8, "adam"), ("reinmax_4x8", 4, 8, "adam"), ("reinmax_12x16", 12, 16, "radam")],
)
def test_models_are_those_of_the_protocol(name, latents, categories, optimizer):
    for study in (f"dvae/{name}_rates", f"dvae/{name}"):
        for _, config in configs(study):
            assert (config.latent.size, config.latent.categories) == (latents, categories)
            assert (config.epochs, config.batch_size, config.optim.name) == (160, 100, optimizer)
            assert (config.encoder.hidden, config.decoder.hidden) == ((512, 256), (256, 512))
    assert len(STUDY[f"dvae/{name}"].seeds) == 10


@pytest.mark.parametrize("name", TABLES)
def test_rates_and_temperatures_are_chosen_on_another_seed(name):
    study, rates = STUDY[name], STUDY[f"{name}_rates"]
    assert not set(study.seeds) & set(rates.seeds)
    rate, temperature = study.takes
    assert (rate.study, temperature.study) == (rates.name, rates.name)
    for labels, config in configs(name):
        chosen_from = [found for found, _ in rates.cells() if found["method"] == labels["method"]]
        has_temperature = hasattr(config.estimator, "temperature")
        assert holds(temperature.when, labels) == has_temperature
        assert {found["optim.lr"] for found in chosen_from} == set(LEARNING_RATES)
        temperatures = {found.get("estimator.temperature") for found in chosen_from}
        assert temperatures == (set(TEMPERATURES) if has_temperature else {None})


@pytest.mark.parametrize("name", TABLES)
def test_claims_are_about_methods_that_the_study_has(name):
    methods = {labels["method"] for labels, _ in STUDY[name].cells()}
    for claim in STUDY[name].claims:
        assert {claim.better["method"], claim.worse["method"]} <= methods
        assert claim.better != claim.worse
    assert len(STUDY["dvae/reinmax_4x8"].claims) == 4


def test_methods_are_named_once():
    estimators = [str(sorted(estimator.items())) for estimator in METHODS.values()]
    assert len(set(estimators)) == len(estimators)


@pytest.mark.parametrize(
    "name",
    ["dvae/reinmax_12x16_rates", *(pytest.param(name, marks=pytest.mark.slow) for name in STUDY if "4x8" in name)],
)
def test_a_small_cohort_of_each_model_trains(name):
    overrides = Overrides(only=name, scale="smoke", values=(("data.limit", 64),), stand_ins=(*STAND_INS.items(),))
    plan = Plan(SWEEP, overrides)
    members = plan.expected(STUDY[name])[:2]
    results = train([member.config for member in members])
    assert [result.status for result in results] == ["finished"] * len(members)
    assert {*STUDY[name].columns} <= set(results[0].metrics)
