"""Winners are compared on other seeds than those that chose them."""

import pytest

from search_spaces import get_sweep, list_sweeps
from search_spaces.derived import reduced, reseeded, searched
from search_spaces.scale import SCALES
from sweeps.planning.plan import Overrides, Plan


def comparisons(sweep):
    """(study, all studies that chose its winners, directly or not), for every study whose winners nobody takes."""
    studies = {study.name: study for study in sweep.studies}
    choosing = {winner.study for study in studies.values() for winner in study.takes}
    for study in studies.values():
        if study.takes and study.name not in choosing:
            chose, waiting = set(), [study]
            while waiting:
                above = {winner.study for winner in waiting.pop().takes} - chose
                chose |= above
                waiting += [studies[name] for name in above]
            yield study, [studies[name] for name in sorted(chose)]


SWEEPS = [get_sweep(name) for name in list_sweeps()]
DERIVED = [
    *SWEEPS,
    *(reduced(sweep, scale) for sweep in SWEEPS for scale in SCALES.values()),
    *(searched(sweep, "tpe", None, 3) for sweep in SWEEPS),
    *(reseeded(sweep, seeds) for sweep in SWEEPS for seeds in (1, 3, 7, 12)),
    *(reseeded(reduced(sweep, SCALES["smoke"]), 3) for sweep in SWEEPS),
]
PAIRS = [
    pytest.param(study, chose, id=f"{sweep.name}:{study.name}")
    for sweep in DERIVED
    for study, chose in comparisons(sweep)
]


def test_every_study_that_takes_from_others_is_looked_at():
    names = {param.values[0].name for param in PAIRS}
    assert {"sg/table1", "sg/table2", "sg/table3_mnist", "dvae/tutorial_4x8", "beyond/guided"} <= names
    assert len(names) == 2 + 3 + 3 + 5


@pytest.mark.parametrize(("study", "chose"), PAIRS)
def test_no_seed_that_chose_is_compared_on(study, chose):
    assert chose
    assert [other.name for other in chose if set(other.seeds) & set(study.seeds)] == []


def seeds_of(plan):
    """The seeds in the configurations of each study's planned members."""
    return {study.name: {member.config.seed for member in plan.expected(study)} for study in plan.studies}


@pytest.mark.parametrize("count", [1, 3, 7])
@pytest.mark.parametrize("name", list_sweeps())
def test_a_number_of_seeds_gives_so_many_that_chose_nothing(name, count):
    sweep = get_sweep(name)
    own, asked = seeds_of(Plan(sweep)), seeds_of(Plan(sweep, Overrides(seeds=count)))
    pairs = {study.name: {other.name for other in chose} for study, chose in comparisons(sweep)}
    choose = set().union(*pairs.values())
    for study in own:
        if study in choose:
            assert asked[study] == own[study]
            continue
        assert len(asked[study]) == count
        chose = set().union(*(asked[other] for other in pairs.get(study, ())))
        assert not asked[study] & chose
        if study in pairs:  # trained already
            assert asked[study] <= own[study] or own[study] <= asked[study]
        else:
            assert asked[study] == set(range(count))


def test_more_seeds_keep_the_members_that_are_trained_already():
    sweep = get_sweep("paper_grid")
    keys = [
        {member.key for study in plan.studies for member in plan.expected(study)}
        for plan in (Plan(sweep, Overrides(only="dvae/*", seeds=seeds)) for seeds in (None, 10, 12))
    ]
    assert keys[0] == keys[1] < keys[2]
