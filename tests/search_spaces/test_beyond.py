import pytest

from search_spaces import get_sweep
from search_spaces.beyond import STUDIES
from search_spaces.scale import STAND_INS
from search_spaces.space import holds
from sweeps.planning.plan import Overrides, Plan
from trainables.config import TrainingConfig
from trainables.training import train

STUDY = {study.name: study for study in STUDIES}


def configs(name):
    """(labels, configuration) of a study's cells."""
    return [(labels, TrainingConfig.model_validate(config)) for labels, config in STUDY[name].cells()]


def test_it_is_a_sweep_of_its_own():
    assert [study.name for study in get_sweep("beyond").studies] == list(STUDY)
    assert not set(STUDY) & {study.name for study in get_sweep("paper_grid").studies}


MEMBERS = {
    "beyond/estimators_4x8_rates": 140,
    "beyond/estimators_4x8": 100,
    "beyond/estimators_12x16_rates": 140,
    "beyond/estimators_12x16": 100,
    "beyond/estimators_bits_rates": 144,
    "beyond/estimators_bits": 110,
    "beyond/decoupled_reinmax_4x8": 810,
    "beyond/decoupled_reinmax_12x16": 810,
    "beyond/silent_categorical_rates": 20,
    "beyond/silent_categorical": 25,
    "beyond/guided_rates": 30,
    "beyond/guided": 30,
}


@pytest.mark.parametrize("name", STUDY)
def test_members_are_as_many_as_the_header_says(name):
    assert len(configs(name)) * len(STUDY[name].seeds) == MEMBERS[name]


def test_the_header_adds_up():
    assert sum(MEMBERS.values()) == 2459


def test_no_estimator_of_discrete_latents_is_forgotten(shipped):
    compared = {config.estimator.name for name in STUDY for _, config in configs(name)}
    needless = {"reparameterization", "exact", "gumbel_softmax"}  # Gaussian; too dear to train with; relaxed codes
    assert compared == set(shipped) - needless


@pytest.mark.parametrize("name", [study.name for study in STUDIES if study.takes])
def test_what_is_taken_was_varied_for_that_row(name):
    study = STUDY[name]
    for labels, _ in study.cells():
        for winner in study.takes:
            if not holds(winner.when, labels):
                continue
            before = STUDY[winner.study]
            found = [own for own, _ in before.cells() if all(own.get(label) == labels[label] for label in winner.match)]
            for field in winner.fields:
                assert len({own[field] for own in found}) > 1, (labels, field)
            assert not set(before.seeds) & set(study.seeds)


def test_a_guide_stands_beside_decoupled_codes_or_there_is_none():
    rows = {(labels["temperatures"], labels["sg"]): config for labels, config in configs("beyond/guided")}
    assert len(rows) == 6
    for (_, guided), config in rows.items():
        assert (config.guide is not None) == (guided == "w/ SG")
        assert config.estimator.name == "decoupled_st_gs"
        assert config.latent.family == "categorical"


def test_claims_are_about_rows_that_the_study_has():
    claims = [(study, claim) for study in STUDIES for claim in study.claims]
    assert claims
    for study, claim in claims:
        rows = [labels for labels, _ in study.cells()]
        assert claim.better in rows
        assert claim.worse in rows


QUICK = "beyond/estimators_12x16_rates"


@pytest.mark.parametrize(
    "name", [QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in STUDY if name != QUICK)]
)
def test_a_small_cohort_of_each_model_trains(name):
    overrides = Overrides(only=name, scale="smoke", values=(("data.limit", 64),), stand_ins=(*STAND_INS.items(),))
    members = Plan(get_sweep("beyond"), overrides).expected(STUDY[name])
    results = train([members[0].config, members[-1].config])
    assert [result.status for result in results] == ["finished"] * 2
    assert {*STUDY[name].columns} <= set(results[0].metrics)
