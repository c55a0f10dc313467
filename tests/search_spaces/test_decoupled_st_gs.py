import itertools

import pytest

from search_spaces import get_sweep
from search_spaces.decoupled_st_gs import BACKWARD, DIAGONAL, FORWARD, STUDIES, TEMPERATURES
from search_spaces.published import published
from search_spaces.scale import STAND_INS
from search_spaces.space import Relation, Sweep
from sweeps.planning.plan import Overrides, Plan
from trainables.config import TrainingConfig
from trainables.training import train

STUDY = {study.name: study for study in STUDIES}
SWEEP = Sweep("dst", "Decoupled ST-GS", STUDIES)
FIGURE2 = ("dst/fig2_mnist", "dst/fig2_cifar10", "dst/fig2_svhn")


def configs(name):
    """(labels, configuration) of a study's cells."""
    return [(labels, TrainingConfig.model_validate(config)) for labels, config in STUDY[name].cells()]


def pairs(name):
    """The forward and backward temperatures of a study's cells."""
    return [(c.estimator.temperature_forward, c.estimator.temperature_backward) for _, c in configs(name)]


def keys(name):
    """The keys of a study's members, without seeds."""
    return {config.key() for _, config in configs(name)}


# --- Compared configurations ------------------------------------------------------------------------------------------


def test_it_is_part_of_the_paper_grid():
    assert set(STUDY) <= {study.name for study in get_sweep("paper_grid").studies}


MEMBERS = {
    "dst/fig2_mnist": 540,
    "dst/fig2_cifar10": 540,
    "dst/fig2_svhn": 540,
    "dst/fig3": 810,
    "dst/fig4": 810,
    "dst/fig5": 540,
    "dst/fig6_forward": 90,
    "dst/fig6_backward": 90,
    "dst/table1": 70,
}


@pytest.mark.parametrize("name", STUDY)
def test_members_are_as_many_as_the_header_says(name):
    assert len(configs(name)) * len(STUDY[name].seeds) == MEMBERS[name]


def test_figures_of_gradients_need_no_training_of_their_own():
    assert keys("dst/fig5") == keys("dst/fig2_cifar10")
    assert keys("dst/fig6_forward") | keys("dst/fig6_backward") < keys("dst/fig3")
    of_its_own = [name for name in STUDY if name not in ("dst/fig5", "dst/fig6_forward", "dst/fig6_backward")]
    assert sum(MEMBERS[name] for name in of_its_own) == 3310
    assert len(set.union(*map(keys, of_its_own))) == sum(len(configs(name)) for name in of_its_own)


@pytest.mark.parametrize("name", ["dst/fig6_forward", "dst/fig6_backward"])
def test_figure_6_has_the_spread_as_it_is_and_the_bias_relative_to_the_exact_gradient(name):
    study = STUDY[name]
    drawn = [figure.metric or study.metric for figure in study.figures]
    assert drawn == [claim.metric for claim in study.claims] == ["gradient_bias_over_exact", "gradient_spread"]
    assert {*drawn, "exact_gradient_norm"} <= set(study.columns)


def test_temperature_grids_have_the_printed_ends_and_points():
    for name in (*FIGURE2, "dst/fig5"):
        forward, backward = (set(of) for of in zip(*pairs(name), strict=True))
        assert (min(forward), max(forward)) == (0.3, 3.0)
        assert (min(backward), max(backward)) == (0.3, 6.0)
        assert sorted(pairs(name)) == sorted(itertools.product(forward, backward))
        assert forward < backward  # the grid contains the whole diagonal
    for name in ("dst/fig3", "dst/fig4"):
        assert sorted(pairs(name)) == sorted(itertools.product(TEMPERATURES, TEMPERATURES))
    assert (min(TEMPERATURES), max(TEMPERATURES), len(TEMPERATURES)) == (0.3, 3.0, 9)
    assert {1.3, 1.6} <= set(TEMPERATURES)
    assert TEMPERATURES[4] == 1.6
    # Evenly spaced, rounded to one decimal.
    assert [round(0.3 + 2.7 / 8 * step, 6) for step in range(9)] == pytest.approx(TEMPERATURES, abs=0.051)
    assert pairs("dst/fig6_forward") == [(forward, 1.3) for forward in TEMPERATURES]
    assert pairs("dst/fig6_backward") == [(1.6, backward) for backward in TEMPERATURES]


def test_autoencoders_are_those_of_a_1():
    for name in (*FIGURE2, "dst/table1"):
        assert len(STUDY[name].seeds) == 5
        for _, config in configs(name):
            assert (config.epochs, config.batch_size, config.optim.name, config.optim.lr) == (100, 64, "adam", 3e-4)
            assert (config.latent.family, config.latent.size) == ("bernoulli", 8 * 8 * 32)
            assert (config.encoder.name, config.decoder.name) == ("residual", "residual")
            assert config.objective.kl_weight == 0
            assert config.data.pixels == "unit"
    assert {config.data.name for name in FIGURE2 for _, config in configs(name)} == {"mnist", "cifar10", "svhn"}


@pytest.mark.parametrize(("name", "latents", "categories", "lr"), [("fig3", 4, 8, 5e-4), ("fig4", 12, 16, 7e-4)])
def test_vaes_are_those_of_a_2(name, latents, categories, lr):
    assert len(STUDY[f"dst/{name}"].seeds) == 10
    for _, config in configs(f"dst/{name}"):
        assert (config.latent.size, config.latent.categories) == (latents, categories)
        assert (config.encoder.hidden, config.decoder.hidden) == ((512, 256), (256, 512))
        assert (config.epochs, config.optim.name, config.optim.lr) == (160, "radam", lr)
        assert (config.data.name, config.data.pixels, config.likelihood.name) == ("mnist", "unit", "bernoulli")


def test_schedules_are_the_twelve_of_table_1_and_two_constant_pairs():
    schedules = {}
    for labels, config in configs("dst/table1"):
        e = config.estimator
        schedules[labels["schedule"]] = (
            (e.temperature_forward, e.temperature_forward_end or e.temperature_forward),
            (e.temperature_backward, e.temperature_backward_end or e.temperature_backward),
        )
    assert schedules["0.3→0.03 | 5→3"] == ((0.3, 0.03), (5, 3))
    assert schedules["1 | 1→2"] == ((1, 1), (1, 2))
    constant = {label for label, ((a, b), (c, d)) in schedules.items() if a == b and c == d}
    assert constant == {"1 | 1", "0.3 | 3"}
    assert len(schedules) == 12 + 2
    three = {(1, 0.3), (1, 1), (1, 2)}
    assert set(schedules.values()) - {((0.3, 0.3), (3, 3))} == {
        *itertools.product(three, three),
        *itertools.product({(0.3, 0.03), (0.3, 2)}, {(5, 3), (1, 3)}),
    }


# --- Numbers and claims -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [study.name for study in STUDIES if study.published])
def test_printed_numbers_are_of_rows_of_the_study(name):
    study = STUDY[name]
    rows = [{label: labels[label] for label in study.compare} for labels, _ in study.cells()]
    numbers = published(study.published)
    assert numbers
    assert [number.labels for number in numbers if number.labels not in rows] == []
    assert {number.metric for number in numbers} == {study.metric}


TABLE_1 = """
1→0.3 | 1→0.3	3.765 ± 0.154
1→0.3 | 1	2.751 ± 0.054
1→0.3 | 1→2	2.642 ± 0.074
1 | 1→0.3	4.579 ± 0.111
1 | 1	3.580 ± 0.213
1 | 1→2	2.889 ± 0.019
1→2 | 1→0.3	4.700 ± 0.134
1→2 | 1	4.600 ± 0.121
1→2 | 1→2	3.470 ± 0.116
0.3→0.03 | 5→3	2.688 ± 0.079
0.3→0.03 | 1→3	2.641 ± 0.051
0.3→2 | 5→3	2.997 ± 0.096
0.3→2 | 1→3	3.009 ± 0.028
"""
"""In units of 1e-3. The third is from the prose of appendix B: the table has 2.042."""
FIGURE_4 = {
    2.0: "86.17 85.63 85.00 84.37 84.41 84.23 84.85 85.38 87.31",
    2.3: "86.10 85.70 85.32 84.73 84.24 84.10 84.42 84.53 85.46",
}


def test_table_1_is_as_printed():
    table = {number.labels["schedule"]: number for number in published("dst_table1")}
    printed = dict(line.split("\t") for line in TABLE_1.strip().splitlines())
    assert table.keys() == printed.keys()
    for schedule, text in printed.items():
        value, spread = text.split(" ± ")
        assert table[schedule].value == pytest.approx(float(value) * 1e-3, rel=1e-12)
        assert spread in table[schedule].note
        assert table[schedule].n == 5
    assert min(table, key=lambda schedule: table[schedule].value) == "0.3→0.03 | 1→3"  # printed in bold


@pytest.mark.parametrize(
    ("schedule", "other"),
    [("1→0.3 | 1→0.3", "2.792 ± 0.154"), ("1→0.3 | 1", "2.731 ± 0.034"), ("1→0.3 | 1→2", "2.042 ± 0.074")],
)
def test_rows_that_are_printed_twice_say_so(schedule, other):
    (number,) = [n for n in published("dst_table1") if n.labels["schedule"] == schedule]
    assert other in number.note


def test_the_legible_rows_of_figure_4_are_as_printed():
    expected = {
        (forward, backward): float(value)
        for forward, row in FIGURE_4.items()
        for backward, value in zip(TEMPERATURES, row.split(), strict=True)
    }
    figure = {(n.labels[FORWARD], n.labels[BACKWARD]): n.value for n in published("dst_fig4")}
    assert figure == expected
    assert len(figure) == len(published("dst_fig4")) == 18


@pytest.mark.parametrize("name", STUDY)
def test_claims_are_about_rows_that_the_study_has(name):
    rows = [labels for labels, _ in STUDY[name].cells()]
    for claim in STUDY[name].claims:
        for asked in (claim.better, claim.worse):
            found = [labels for labels in rows if all(meets(labels, label, value) for label, value in asked.items())]
            assert 0 < len(found) < len(rows), (claim.text, asked)


def meets(labels, label, value):
    return value.holds(labels.get(label), labels) if isinstance(value, Relation) else labels.get(label) == value


def test_relations_compare_labels_of_one_row():
    (same,) = DIAGONAL.values()
    assert same.holds(0.3, {FORWARD: 0.3, BACKWARD: 0.3})
    assert not same.holds(0.3, {FORWARD: 0.3, BACKWARD: 0.6})
    assert not same.holds(None, {})
    assert [Relation(sign, "b").holds(1, {"b": 2}) for sign in "<=>"] == [True, False, False]
    assert [Relation(sign, "b").holds(3, {"b": 2}) for sign in "<=>"] == [False, False, True]


def test_diagonals_are_as_long_as_the_grid_is_wide():
    (same,) = DIAGONAL.values()
    for name in ("dst/fig2_mnist", "dst/fig3"):
        assert sum(same.holds(labels[FORWARD], labels) for labels, _ in STUDY[name].cells()) == len(TEMPERATURES)


# --- It trains --------------------------------------------------------------------------------------------------------

ARCHITECTURES = [
    "dst/fig2_mnist",
    pytest.param("dst/fig2_svhn", marks=pytest.mark.slow),
    pytest.param("dst/table1", marks=pytest.mark.slow),
    pytest.param("dst/fig5", marks=pytest.mark.slow),
    pytest.param("dst/fig6_forward", marks=pytest.mark.slow),
    "dst/fig4",
]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_small_cohort_of_each_architecture_trains(name):
    plan = Plan(
        SWEEP, Overrides(only=name, scale="smoke", values=(("data.limit", 64),), stand_ins=(*STAND_INS.items(),))
    )
    members = plan.members[name]
    chosen = [members[0], members[-1]]
    results = train([member.config for member in chosen])
    assert [result.status for result in results] == ["finished", "finished"]
    study = STUDY[name]
    measured = [[result.metrics[column] for column in study.columns] for result in results]
    assert measured[0] != measured[1]  # the different temperatures reach the training
