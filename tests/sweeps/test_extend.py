"""When a sweep grows, only new members are trained."""

import dataclasses

import pytest
from scripted import GRID, SEARCH, SMALL

from search_spaces.space import Axis, Sweep
from sweeps.driver.driver import Driver
from sweeps.planning.plan import Overrides, Plan
from sweeps.records.storage import Storage
from sweeps.run import run

MORE_RATES = dataclasses.replace(GRID, grid=(Axis("optim.lr", (1e-3, 1e-2, 1e-1)), *GRID.grid[1:]))
assert SEARCH.search is not None
MORE_SUGGESTIONS = dataclasses.replace(SEARCH, search=dataclasses.replace(SEARCH.search, members=12))


@pytest.mark.parametrize(
    ("study", "grown", "overrides", "old", "new"),
    [
        (GRID, GRID, {"seeds": 3}, 8, 4),
        (GRID, MORE_RATES, {}, 8, 4),
        (SEARCH, MORE_SUGGESTIONS, {}, 7, 5),
        (GRID, GRID, {"values": (("epochs", 3),)}, 8, 8),
    ],
    ids=["more seeds", "a wider grid", "more suggestions", "more epochs are new members"],
)
def test_only_the_new_members_are_trained(ledger, drain, study, grown, overrides, old, new):
    drain(Driver(Plan(Sweep("small", "x", (study,))), ledger, retry_failed=False))
    before = ledger.read()
    assert len(before) == old
    driver = Driver(Plan(Sweep("small", "x", (grown,)), Overrides(**overrides)), ledger, retry_failed=False)
    trained = [member.key for cohort in drain(driver) for member in cohort.members]
    assert len(trained) == driver.trained == new
    assert not before.keys() & set(trained)
    after = ledger.read()
    assert after.keys() == before.keys() | set(trained)
    assert {key: after[key] for key in before} == before


def test_who_asks_for_a_fresh_folder_gets_no_other_and_nothing_is_deleted(command, tmp_path):
    place = Storage(str(tmp_path / "runs"), "quickstart")
    place.write("ledger/something", b"kept")
    code, out, err = command(run, "quickstart", "--fresh")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "--storage" in err
    assert [path.name for path in tmp_path.rglob("*")] == ["runs", "quickstart", "ledger", "something"]


def test_a_smaller_plan_forgets_nothing(ledger, drain):
    drain(Driver(Plan(SMALL), ledger, retry_failed=False))
    narrow = Driver(Plan(SMALL, Overrides(only="grid", seeds=1)), ledger, retry_failed=False)
    assert not narrow.todo
    assert len(narrow.current()) == 4
    assert len(ledger.read()) == 15
