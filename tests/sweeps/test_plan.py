import dataclasses

import pytest
from scripted import BASE, GRID, SEARCH, SMALL

from search_spaces.space import Sweep
from sweeps.errors import UserError
from sweeps.planning.plan import Overrides, Plan, parse_setting


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


@pytest.mark.parametrize(
    "change",
    [
        lambda plan: setattr(plan, "overrides", Overrides(seeds=9)),
        lambda plan: setattr(plan, "studies", ()),
        lambda plan: setattr(plan, "note", "anything"),
        lambda plan: plan.members.update(grid=()),
        lambda plan: plan.members.pop("grid"),
        lambda plan: plan.studies.append(GRID),
    ],
)
def test_a_plan_does_not_change(change):
    whole = plan()
    with pytest.raises((dataclasses.FrozenInstanceError, AttributeError, TypeError)):
        change(whole)
    assert whole.total() == 15
    assert [study.name for study in whole.studies] == ["grid", "searched"]
