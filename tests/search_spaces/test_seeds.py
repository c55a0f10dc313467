"""Winners are compared on other seeds than those that chose them."""

import pytest

from search_spaces import get_sweep, list_sweeps
from search_spaces.derived import reduced, searched
from search_spaces.scale import SCALES


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
