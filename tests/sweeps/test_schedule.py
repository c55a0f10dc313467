"""The order and the sizes of cohorts."""

import dataclasses
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted import BASE, SEARCH

from search_spaces.space import Axis, Study, Sweep, Winner
from sweeps.errors import UserError
from sweeps.planning import schedule
from sweeps.planning.plan import Plan, PlannedCohort
from sweeps.planning.schedule import GRAIN, Workload, group

NOWHERE = Path("nowhere")
WIDE = {"encoder": {"name": "mlp", "hidden": (1024, 1024)}, "batch_size": 500}
"""A step of four such members has `GRAIN` operations."""


def study(name: str, seeds: int, **changes) -> Study:
    takes = changes.pop("takes", ())
    return Study(name=name, title="", source="", base=BASE | changes, seeds=tuple(range(seeds)), takes=takes)


def planned(*studies: Study) -> Plan:
    return Plan(Sweep("planned", "x", studies))


def grouped(*studies: Study, slots: int, pack: int | None = None, **others: float) -> list[PlannedCohort]:
    plan = planned(*studies)
    members = [member for own in studies for member in plan.expected(own)]
    return group(members, slots=slots, pack=pack, workload=Workload(plan, NOWHERE), **others)


def shapes(*sizes: int) -> list[Study]:
    return [study(f"s{size}_{i}", size, batch_size=100 + i) for i, size in enumerate(sizes)]


def sizes(cohorts: list[PlannedCohort]) -> list[int]:
    return [len(cohort.members) for cohort in cohorts]


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.integers(1, 5), st.none() | st.integers(1, 4))
def test_every_member_is_in_exactly_one_cohort_of_its_shape(counts, slots, pack):
    studies = shapes(*counts)
    cohorts = grouped(*studies, slots=slots, pack=pack)
    members = [member for own in studies for member in planned(*studies).expected(own)]
    assert sorted(m.key for cohort in cohorts for m in cohort.members) == sorted(m.key for m in members)
    assert all(len({m.config.shape_key() for m in cohort.members}) == 1 for cohort in cohorts)
    assert pack is None or max(sizes(cohorts)) <= pack
    work = Workload(planned(*studies), NOWHERE)
    share = work.of(*members) / slots
    # No slot is given more than its share, but for one member: the others need not wait for it.
    assert all(work.of(*cohort.members[1:]) <= share * (1 + 1e-6) for cohort in cohorts)
    for own in studies:
        of_shape = [len(c.members) for c in cohorts if c.members[0].study == own.name]
        assert max(of_shape) - min(of_shape) <= 1


def test_one_shape_is_spread_over_all_slots_and_small_shapes_stay_whole():
    assert sizes(grouped(*shapes(9), slots=2)) == [5, 4]
    assert sorted(sizes(grouped(*shapes(8, 2, 2), slots=2))) == [2, 2, 4, 4]


def test_a_cohort_is_named_by_its_members():
    a, b = grouped(*shapes(2), slots=2)
    assert a.key != b.key
    assert grouped(*shapes(2), slots=2)[0].key == a.key


def test_what_takes_longest_goes_first_whatever_its_number_of_epochs():
    small, large = study("small", 4, epochs=20), study("large", 4, epochs=2, **WIDE)
    first, *_ = grouped(small, large, slots=1)
    assert first.members[0].study == "large"


def test_shares_are_of_operations():
    """Of two shapes with the same epochs, only the one that costs far more is split."""
    cohorts = grouped(study("small", 8), study("large", 8, **WIDE), slots=4)
    assert [len(c.members) for c in cohorts if c.members[0].study == "small"] == [8]
    assert sizes(cohorts) == [2, 2, 2, 2, 8]


def test_what_others_wait_for_goes_before_what_takes_longer():
    first = study("first", 2)
    then = study("then", 2, takes=(Winner("first", ("optim.lr",)),))
    last = study("last", 1, **WIDE, takes=(Winner("then", ("optim.lr",)),))
    alone = study("alone", 4, batch_size=100, epochs=5)
    plan = planned(first, then, last, alone)
    work = Workload(plan, NOWHERE)
    one = {name: work.of(plan.example(s)) for name, s in (("then", then), ("last", last))}
    assert work.after("first") == one["then"] + one["last"]
    assert work.after("then") == one["last"]
    assert work.after("last") == work.after("alone") == 0
    members = [*plan.expected(alone), *plan.expected(first)]
    assert work.of(*plan.expected(alone)) > work.of(*plan.expected(first))
    pressing = [cohort.members[0].study for cohort in group(members, slots=2, workload=work)]
    assert pressing[0] == "first"


def test_what_others_wait_for_is_trained_in_small_cohorts_where_they_would_be_late():
    """Training in progress would put all four into one cohort, but the longest chain of studies starts with them."""
    first = study("first", 4)
    last = study("last", 1, epochs=20, takes=(Winner("first", ("optim.lr",)),))
    plan, alone = planned(first, last), planned(first)
    running = 24 * Workload(plan, NOWHERE).of(plan.example(first))
    work = Workload(plan, NOWHERE)
    assert sizes(group(plan.expected(first), slots=4, workload=work, running=running)) == [1, 1, 1, 1]
    assert sizes(group(alone.expected(first), slots=4, workload=Workload(alone, NOWHERE), running=running)) == [4]


def test_batches_of_a_search_wait_for_each_other():
    plan = planned(SEARCH)
    work = Workload(plan, NOWHERE)
    assert work.after(SEARCH.name) == 2 * work.of(plan.example(SEARCH))  # seven members in batches of three


def test_a_batch_that_competes_stays_together():
    assert SEARCH.search is not None
    halved = dataclasses.replace(SEARCH, search=dataclasses.replace(SEARCH.search, halving=3))
    plan = planned(halved)
    members = plan.expected(halved)[:1] + plan.members_of(plan.cells(halved)[0], {"optim.lr": 3e-3})
    work = Workload(plan, NOWHERE)
    assert sizes(group(members, slots=2, workload=work)) == [2]
    assert sizes(group(members, slots=2, workload=work, pack=1)) == [1, 1]


def test_large_members_go_in_several_rounds_and_small_ones_do_not(monkeypatch):
    plan = planned(study("large", 64, **WIDE), study("small", 64))
    work = Workload(plan, NOWHERE)
    large, small = (plan.expected(each) for each in plan.studies)
    assert work.fewest(large[0]) == 4
    assert sizes(group(large, slots=2, workload=work)) == [4] * 16
    assert work.fewest(small[0]) > 64
    assert sizes(group(small, slots=2, workload=work)) == [32] * 2
    monkeypatch.setattr(schedule, "SHARES", 1)
    assert sizes(group(large, slots=2, workload=work)) == [32] * 2


def test_what_is_in_training_counts_half():
    """While the other slots are busy for long, a free slot gets half of the waiting members."""
    members = planned(own := study("only", 12)).expected(own)
    work = Workload(planned(own), NOWHERE)
    assert sizes(group(members, slots=4, workload=work)) == [3] * 4
    assert sizes(group(members, slots=4, workload=work, running=work.of(*members) * 2)) == [6] * 2


def test_measured_costs_go_before_counted_ones():
    plan = planned(study("a", 2), study("b", 2, batch_size=100))
    members = [member for own in plan.studies for member in plan.expected(own)]
    for dear in (0, 2):
        measured = {member.shape: 1.0 for member in members} | {members[dear].shape: 9.0}
        first = group(members, slots=2, workload=Workload(plan, NOWHERE, measured))[0]
        assert first.members[0].shape == members[dear].shape
    assert sum(sizes(group(members, slots=2, workload=Workload(plan, NOWHERE, dict.fromkeys(measured, 0.0))))) == 4


def test_members_that_others_wait_for_share_a_cohort_with_each_other():
    """Members that nobody waits for have the same shape and come first in the plan."""
    rates = Axis("optim.lr", (0.1, 0.2, 0.3, 0.4, 0.5))
    late = Study(name="late", title="", source="", base=BASE, grid=(rates,))
    first = study("first", 4)
    last = study("last", 1, takes=(Winner("first", ("optim.lr",)),))
    plan = planned(late, first, last)
    members = [*plan.expected(late), *plan.expected(first)]
    cohorts = group(members, slots=2, workload=Workload(plan, NOWHERE), unmade=1e12)
    assert [{m.study for m in cohort.members} for cohort in cohorts] == [{"first"}, {"late"}]


def test_a_network_that_does_not_go_with_its_images_is_told_with_its_study():
    plan = planned(study("wrong", 1, encoder={"name": "strided"}))
    with pytest.raises(UserError, match=r"study 'wrong' on 'digits': .*32"):
        Workload(plan, NOWHERE).of(plan.example(plan.studies[0]))


def test_the_grain_is_of_a_step():
    plan = planned(study("large", 1, **WIDE))
    member = plan.example(plan.studies[0])
    config, pixels = member.config, 64
    products = pixels * 1024 + 1024 * 1024 + 1024 * 8 + 4 * pixels
    step = 2 * config.batch_size * (3 * products - pixels * 1024)
    assert Workload(plan, NOWHERE).fewest(member) == math.ceil(GRAIN / step)
