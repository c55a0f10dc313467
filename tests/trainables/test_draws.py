import pytest
from members import member

from trainables.data import load
from trainables.diagnostics import measure, measure_due
from trainables.packing.cohort import Cohort


@pytest.mark.parametrize("draws", [None, 3])
def test_a_configuration_says_how_many_codes_are_drawn(draws, tmp_path):
    one = member(diagnostics={"gradient_variance": [1], "draws": draws})
    cohort = Cohort([one], load("digits", tmp_path).limited(200))
    cohort.train_epoch()
    found = measure_due(cohort)["gradient_variance"]
    assert found == measure(cohort, ["gradient_variance"], draws=draws)["gradient_variance"]
    other = measure(cohort, ["gradient_variance"], draws=7)["gradient_variance"]
    assert found != other, "the number of draws matters"


def test_due_are_those_with_epochs():
    one = member(diagnostics={"iw_bound": [1], "draws": 5})
    assert list(one.diagnostics.due()) == [("iw_bound", (1,))]
