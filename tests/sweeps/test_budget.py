"""A search with a budget trains exactly the members that it says, counted in the ledger."""

from collections import Counter

import pytest
from scripted import BASE, result

from search_spaces.space import Axis, Study, Sweep, Variants
from sweeps.driver.driver import Driver
from sweeps.planning.plan import Overrides, Plan, SearchOptions
from sweeps.records.ledger import Ledger

RATES = (1e-4, 1e-3, 1e-2)
MANY_SEEDS = Study(
    name="many",
    title="",
    source="",
    base=BASE,
    grid=(Axis("optim.lr", RATES), Axis("likelihood.variance", (0.01, 0.03, 0.1))),
    seeds=tuple(range(10)),
)
TWO_ROWS = Study(
    name="rows",
    title="",
    source="",
    base=BASE,
    grid=(
        Variants("size", {"small": {}, "large": {"encoder": {"name": "mlp", "hidden": (9,)}}}),
        Axis("optim.lr", RATES),
    ),
    seeds=tuple(range(10)),
    compare=("size",),
)
SWEEP = Sweep("searched", "", (MANY_SEEDS, TWO_ROWS))


def plan(budget: int | None, seeds: int | None = None, only: str | None = None) -> Plan:
    return Plan(SWEEP, Overrides(only=only, seeds=seeds, search=SearchOptions("tpe", budget, halving=1)))


def trained(ledger: Ledger) -> Counter[tuple[int, ...]]:
    """The number of members in the ledger by the size of the encoder, which tells the row."""
    return Counter(tuple(row.config["encoder"]["hidden"]) for row in ledger.read().values())


@pytest.mark.parametrize("seeds", [None, 1, 2, 4])
@pytest.mark.parametrize("budget", [8, 9, 20, 27, 30, 90])
def test_as_many_are_trained_as_are_planned_and_no_more_than_the_budget(ledger, drain, budget, seeds):
    asked = plan(budget, seeds)
    planned = {study.name: asked.size(study) for study in asked.studies}
    drain(Driver(asked, ledger, retry_failed=False))
    found = trained(ledger)
    assert found.total() == asked.total() == sum(planned.values())
    assert found[(9,)] == planned["rows"] / 2
    most_seeds = max(len(study.seeds) for study in asked.studies)
    for name, count in planned.items():
        suggestions_of_a_row = (2 if name == "rows" else 1) * most_seeds
        assert budget - suggestions_of_a_row < count <= budget
    if seeds is not None:
        assert {row.config["seed"] for row in ledger.read().values()} == set(range(seeds))


@pytest.mark.parametrize("first", [8, 30, 100])
@pytest.mark.parametrize("second", [6, 12, 40, 100])
@pytest.mark.parametrize("until", [1, 2, None])
def test_a_search_that_goes_on_with_another_budget_keeps_it(ledger, first, second, until):
    begun = Driver(plan(first, only="many"), ledger, retry_failed=False)
    begun.begin(slots=2, pack=None)
    cohorts = 0
    while (until is None or cohorts < until) and (cohort := begun.next()) is not None:
        begun.ended(cohort, [result(member) for member in cohort.members])
        cohorts += 1
    before = set(ledger.read())

    asked = plan(second, only="many")
    (study,) = asked.studies
    goes_on = Driver(asked, ledger, retry_failed=False)
    goes_on.begin(slots=2, pack=None)
    while (cohort := goes_on.next()) is not None:
        goes_on.ended(cohort, [result(member) for member in cohort.members])
    assert goes_on.exhausted()
    members = {member.key for member in goes_on.members()}
    assert len(members) == asked.size(study) <= second
    assert set(ledger.read()) == before | members
    assert goes_on.trained == len(members - before)


def test_suggestions_beyond_a_smaller_budget_come_back_with_the_larger_one(ledger, drain):
    drain(Driver(plan(30, only="many"), ledger, retry_failed=False))
    everything = {member.key for member in Driver(plan(30, only="many"), ledger, retry_failed=False).members()}
    few = Driver(plan(6, only="many"), ledger, retry_failed=False)
    assert len(few.members()) == 6
    assert not few.todo
    again = Driver(plan(30, only="many"), ledger, retry_failed=False)
    assert {member.key for member in again.members()} == everything
    assert not again.todo
