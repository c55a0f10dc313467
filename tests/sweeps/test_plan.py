import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted import BASE, GRID, SEARCH, SMALL

from search_spaces.space import Study, Sweep
from sweeps.errors import UserError
from sweeps.plan import Overrides, Plan, group, parse_setting


def plan(*values: tuple, **overrides) -> Plan:
    return Plan(SMALL, Overrides(values=values, **overrides))


def test_a_grid_is_crossed_with_its_seeds():
    members = plan().members["grid"]
    assert len({member.key for member in members}) == len(members) == 8
    assert plan().total() == 8 + 7


def test_seeds_and_only_narrow_or_widen():
    assert len(plan(seeds=3).members["grid"]) == 12
    assert [study.name for study in plan(only="sea*").studies] == ["searched"]
    with pytest.raises(UserError, match="grid, searched"):
        plan(only="nothing*")


def test_settings_reach_every_member_that_has_the_field():
    assert {member.config.epochs for member in plan(("epochs", 5)).members["grid"]} == {5}
    changed = plan(("epochs", 5))
    assert changed.members_of(changed.cells(SEARCH)[0], {"optim.lr": 1e-3})[0].config.epochs == 5


def test_settings_can_make_members_equal_and_they_are_then_one():
    assert len(plan(("optim.lr", 1e-3)).members["grid"]) == 4


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (("optim.lrr", 1.0), "did you mean 'optim.lr'"),
        (("optim.lr", -1.0), "optim.lr"),
        (("epochs", 0), "epochs"),
        (("data.name", "digitz"), "did you mean 'digits'|Did you mean 'digits'"),
        (("seed", "x"), "seed"),
    ],
)
def test_bad_settings_are_told_in_one_line(setting, message):
    with pytest.raises(UserError, match=message) as caught:
        plan(setting)
    assert "\n" not in str(caught.value)


def test_a_setting_needs_an_equals_sign():
    assert parse_setting("optim.lr=1e-3") == ("optim.lr", 1e-3)
    assert parse_setting("data.name=digits") == ("data.name", "digits")
    assert parse_setting("encoder.hidden=[8, 4]") == ("encoder.hidden", [8, 4])
    with pytest.raises(UserError, match="KEY=VALUE"):
        parse_setting("optim.lr")


def test_an_invalid_study_is_refused_with_its_name():
    broken = dataclasses.replace(GRID, base=BASE | {"estimator": {"name": "silnet"}})
    with pytest.raises(UserError, match=r"study 'grid'.*silent"):
        Plan(Sweep("broken", "x", (broken,)))


def members_of_shapes(*sizes: int) -> list:
    studies = tuple(
        Study(name=f"s{size}_{i}", title="", source="", base=BASE | {"batch_size": 100 + i}, seeds=tuple(range(size)))
        for i, size in enumerate(sizes)
    )
    return [member for own in Plan(Sweep("shapes", "x", studies)).members.values() for member in own]


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.integers(1, 5), st.none() | st.integers(1, 4))
def test_every_member_is_in_exactly_one_cohort_of_its_shape(sizes, slots, pack):
    members = members_of_shapes(*sizes)
    cohorts = group(members, slots=slots, pack=pack)
    assert sorted(m.key for cohort in cohorts for m in cohort.members) == sorted(m.key for m in members)
    assert all(len({m.config.shape_key() for m in cohort.members}) == 1 for cohort in cohorts)
    assert pack is None or max(len(cohort.members) for cohort in cohorts) <= pack
    assert len(cohorts) >= min(slots, len(members)) or len(sizes) > 1


def test_one_shape_is_spread_over_all_slots_and_small_shapes_stay_whole():
    assert sorted(len(c.members) for c in group(members_of_shapes(9), slots=2)) == [4, 5]
    sizes = sorted(len(c.members) for c in group(members_of_shapes(8, 2, 2), slots=2))
    assert sizes == [2, 2, 4, 4]


def test_a_cohort_is_named_by_its_members():
    a, b = group(members_of_shapes(2), slots=2)
    assert a.key != b.key
    assert group(members_of_shapes(2), slots=2)[0].key == a.key
