import dataclasses

import pytest
from scripted import GRID, SEARCH, SMALL, quality, result

from search_spaces.space import Choice, LogUniform, Sweep, Winner
from sweeps.driver.driver import Driver
from sweeps.errors import UserError
from sweeps.planning.plan import Overrides, Plan
from sweeps.planning.search import CellSearch
from sweeps.records.ledger import Ledger
from trainables.reports import failures


def driver(ledger: Ledger, plan: Plan | None = None, retry_failed: bool = False) -> Driver:
    return Driver(plan or Plan(SMALL), ledger, retry_failed=retry_failed)


def batches(ledger: Ledger) -> list[list[dict]]:
    """The stored suggestions of SEARCH."""
    plan = Plan(SMALL)
    return CellSearch(plan, plan.cells(SEARCH)[0], ledger).batches()


def test_everything_is_trained_once_and_the_second_run_trains_nothing(ledger, drain):
    first = driver(ledger)
    drain(first)
    assert first.trained == len(first.current()) == 15
    again = driver(ledger)
    assert not again.todo
    assert drain(again) == []


def test_with_one_row_gone_that_member_alone_is_trained(ledger, storage, drain):
    drain(driver(ledger))
    rows = list(ledger.read().values())
    for path in (storage.local_path / "ledger").glob("*.parquet"):
        path.unlink()
    ledger.append(rows[1:])
    (cohort,) = drain(driver(ledger))
    assert [member.key for member in cohort.members] == [rows[0].key]


def test_failures_are_kept_until_a_retry_is_asked_for(ledger, drain):
    def half_diverges(d, cohort):
        d.ended(
            cohort,
            [
                result(m, **({"status": "failed", "reason": "diverged", "metrics": {}} if m.config.seed else {}))
                for m in cohort.members
            ],
        )

    drain(driver(ledger), half_diverges)
    failed = {key for key, row in ledger.read().items() if row.status == "failed"}
    assert len(failed) == 4
    assert not driver(ledger).todo
    retry = driver(ledger, retry_failed=True)
    assert {member.key for cohort in drain(retry) for member in cohort.members} == failed
    assert all(row.status == "finished" for row in ledger.read().values())


def test_a_cohort_that_breaks_fails_its_members_and_no_others(ledger, drain):
    broken = set()

    def second_breaks(d, cohort):
        keys = [member.key for member in cohort.members]
        if d.trained and not broken:
            broken.update(keys)
            d.ended(cohort, failures(keys, "error", "Traceback …"))
        else:
            d.ended(cohort, [result(member) for member in cohort.members])

    drain(driver(ledger), second_breaks)
    assert 0 < len(broken) < 14
    assert {key for key, row in ledger.read().items() if row.status == "failed"} == broken
    assert len(ledger.read()) == 15
    assert {row.detail for row in ledger.read().values()} == {"Traceback …", None}


@pytest.mark.parametrize(("limit", "cohorts"), [(1, 1), (5, 2), (100, 2)])
def test_after_too_many_failures_nothing_more_is_handed_out(ledger, drain, limit, cohorts):
    plan = Plan(SMALL, Overrides(only="grid"))
    d = Driver(plan, ledger, retry_failed=False, max_failures=limit)
    handed_out = drain(d, lambda d, c: d.ended(c, failures([m.key for m in c.members], "error", "Traceback …")))
    assert len(handed_out) == cohorts
    assert d.gave_up == (limit < 100)
    assert d.failures == 4 * cohorts
    assert driver(ledger, plan).todo == (cohorts < 2)


def test_what_does_not_fit_into_memory_is_halved_until_it_does(ledger, drain):
    def at_most_two(d, cohort):
        keys = [member.key for member in cohort.members]
        if len(keys) > 2:
            d.ended(cohort, failures(keys, "out_of_memory", "Traceback …"))
        else:
            d.ended(cohort, [result(member) for member in cohort.members])

    d = driver(ledger, Plan(SMALL, Overrides(only="grid")))
    cohorts = drain(d, at_most_two)
    assert [len(cohort.members) for cohort in cohorts] == [4, 2, 2, 4, 2, 2]
    assert d.trained == 8
    assert {row.status for row in ledger.read().values()} == {"finished"}
    assert ledger.begun_cohorts(lambda key: True) == []


def test_members_are_trained_as_many_at_a_time_as_were_found_to_fit(ledger, drain):
    def one_fits(d, cohort):
        keys = [member.key for member in cohort.members]
        if len(keys) > 1:
            d.ended(cohort, failures(keys, "out_of_memory", "1 of 4 members fit", fit=1))
        else:
            d.ended(cohort, [result(member) for member in cohort.members])

    d = driver(ledger, Plan(SMALL, Overrides(only="grid")))
    cohorts = drain(d, one_fits)
    assert [len(cohort.members) for cohort in cohorts] == [4, 1, 1, 1, 1, 4, 1, 1, 1, 1]
    assert [member.key for cohort in cohorts[1:5] for member in cohort.members] == [m.key for m in cohorts[0].members]
    assert {row.status for row in ledger.read().values()} == {"finished"}


def test_images_that_a_node_cannot_read_stop_the_run_and_fail_no_member(ledger):
    d = driver(ledger, Plan(SMALL, Overrides(only="grid")))
    d.begin(slots=1, pack=None)
    cohort = d.next()
    keys = [member.key for member in cohort.members]
    with pytest.raises(UserError, match="images cannot be read on node7: mnist is missing"):
        d.ended(cohort, failures(keys, "data", "on node7: mnist is missing"))
    assert ledger.read() == {}


def test_a_member_that_does_not_fit_alone_fails_and_the_others_of_its_cohort_do_not(ledger, drain):
    def too_big(d, cohort):
        keys = [member.key for member in cohort.members]
        if any(member.config.seed for member in cohort.members):
            d.ended(cohort, failures(keys, "out_of_memory", "Traceback …"))
        else:
            d.ended(cohort, [result(member) for member in cohort.members])

    d = driver(ledger, Plan(SMALL, Overrides(only="grid")))
    drain(d, too_big)
    assert {row.config["seed"]: (row.status, row.reason) for row in ledger.read().values()} == {
        0: ("finished", None),
        1: ("failed", "out_of_memory"),
    }


def test_more_seeds_train_only_the_new_ones(ledger, drain):
    only = {"only": "grid"}
    drain(driver(ledger, Plan(SMALL, Overrides(**only))))
    cohorts = drain(driver(ledger, Plan(SMALL, Overrides(seeds=3, **only))))
    assert {member.config.seed for cohort in cohorts for member in cohort.members} == {2}


def test_a_member_of_two_studies_is_trained_once_and_is_in_both(ledger, drain):
    sweep = Sweep("two", "x", (GRID, dataclasses.replace(GRID, name="same")))
    d = driver(ledger, Plan(sweep))
    assert sum(len(cohort.members) for cohort in drain(d)) == 8
    assert len(d.members()) == 16


def test_a_search_gets_its_budget_in_batches_that_wait_for_the_one_before(ledger, drain):
    seen = []

    def watch(d, cohort):
        seen.append(len(d.current()))
        d.ended(cohort, [result(member) for member in cohort.members])

    drain(driver(ledger, Plan(SMALL, Overrides(only="searched"))), watch)
    assert [len(batch) for batch in batches(ledger)] == [3, 3, 1]
    assert seen == [0, 2, 3, 5, 6]


@pytest.mark.parametrize("stop_after", [1, 2, 3, 4])
def test_an_interrupted_search_suggests_what_an_uninterrupted_one_does(tmp_path, drain, stop_after):
    from sweeps.records.storage import Storage

    def fresh(name):
        place = Storage(str(tmp_path / name), "small")
        place.prepare()
        return Ledger(place)

    plan = Plan(SMALL, Overrides(only="searched"))
    whole, broken = fresh("whole"), fresh("broken")
    drain(driver(whole, plan))

    interrupted = driver(broken, plan)
    interrupted.begin(slots=2, pack=None)
    for _ in range(stop_after):
        cohort = interrupted.next()
        assert cohort is not None
        interrupted.ended(cohort, [result(member) for member in cohort.members])
    interrupted.next()  # handed out and lost
    drain(driver(broken, plan))

    assert batches(broken) == batches(whole)
    assert broken.read().keys() == whole.read().keys()


def test_a_search_learns(ledger, drain):
    study = dataclasses.replace(SMALL.studies[1], search=dataclasses.replace(SMALL.studies[1].search, members=30))
    d = driver(ledger, Plan(Sweep("learns", "x", (study,))))
    drain(d)
    values = [quality(member) for member in d.members()]
    assert sum(values[-10:]) < 0.6 * sum(values[:10])


def test_cohorts_in_training_when_the_driver_died_are_formed_again_as_they_were(ledger):
    plan = Plan(SMALL, Overrides(only="grid"))
    killed = driver(ledger, plan)
    killed.begin(slots=4, pack=None)
    lost = [killed.next() for _ in range(3)]
    killed.ended(lost[0], [result(member) for member in lost[0].members])

    again = driver(ledger, plan)
    again.begin(slots=1, pack=None)  # one slot alone would give one cohort
    cohorts = [again.next() for _ in range(3)]
    assert {cohort.key for cohort in cohorts[:2]} == {cohort.key for cohort in lost[1:]}
    members = [member.key for cohort in cohorts for member in cohort.members]
    assert len(set(members)) == len(members) == 8 - len(lost[0].members)
    assert again.next() is None
    for cohort in cohorts:
        again.ended(cohort, [result(member) for member in cohort.members])
    assert ledger.begun_cohorts(lambda key: True) == []


def test_a_cohort_whose_driver_died_after_its_last_row_is_over(ledger, storage, drain):
    plan = Plan(SMALL, Overrides(only="grid"))
    killed = driver(ledger, plan)
    drain(killed)
    ledger.begin_cohort("unended", [member.key for member in plan.members["grid"]])
    ledger.begin_cohort("of another study", ["a member"])
    assert drain(driver(ledger, plan)) == []
    assert storage.list("cohorts", ".json") == ["cohorts/of another study.json"]


def test_a_smaller_pack_regroups_cohorts_that_were_in_training(ledger):
    plan = Plan(SMALL, Overrides(only="grid"))
    killed = driver(ledger, plan)
    killed.begin(slots=1, pack=None)
    assert len(killed.next().members) == 8
    again = driver(ledger, plan)
    again.begin(slots=1, pack=3)
    assert [len(again.next().members) for _ in range(3)] == [3, 3, 2]


def test_a_search_over_lists_can_be_resumed(ledger, drain):
    hidden = ((8,), (16,), (8, 8))
    search = dataclasses.replace(SEARCH.search, space=(Choice("encoder.hidden", hidden),), members=6)
    plan = Plan(Sweep("lists", "x", (dataclasses.replace(SEARCH, search=search),)))
    killed = driver(ledger, plan)
    killed.begin(slots=2, pack=None)
    killed.next()
    d = driver(ledger, plan)
    drain(d)
    assert not driver(ledger, plan).todo
    assert {member.labels["encoder.hidden"] for member in d.members()} <= set(hidden)
    assert len({member.config.encoder.hidden for member in d.members()}) > 1


def test_a_changed_space_is_another_search(ledger, drain):
    def plan(high):
        search = dataclasses.replace(SEARCH.search, space=(LogUniform("optim.lr", 1e-4, high),))
        return Plan(Sweep("narrower", "x", (dataclasses.replace(SEARCH, search=search),)))

    drain(driver(ledger, plan(1e-1)))
    narrower = driver(ledger, plan(1e-3))
    drain(narrower)
    assert narrower.trained == 7
    assert all(member.config.optim.lr <= 1e-3 for member in narrower.members())
    assert not driver(ledger, plan(1e-1)).todo


@pytest.mark.parametrize("damage", [b"", b"{", b"[1]", b"\xff\xfe"])
def test_suggestions_that_are_damaged_are_made_anew_and_nothing_is_trained_twice(ledger, storage, drain, damage):
    plan = Plan(SMALL, Overrides(only="searched"))
    drain(driver(ledger, plan))
    before = batches(ledger)
    next((storage.local_path / "suggestions").rglob("00001.json")).write_bytes(damage)
    again = driver(ledger, plan)
    drain(again)
    assert again.trained == 0
    assert batches(ledger) == before


def test_members_come_in_the_order_of_the_plan_however_often_it_was_interrupted(ledger, drain):
    plan = Plan(Sweep("turned", "x", SMALL.studies[::-1]))
    first = driver(ledger, plan)
    drain(first)
    assert [member.key for member in first.members()] == [member.key for member in driver(ledger, plan).members()]
    assert [member.study for member in first.members()] == ["searched"] * 7 + ["grid"] * 8


def test_a_checkpoint_that_cannot_be_written_stops_the_run_and_fails_nobody(ledger, drain):
    def full(d, cohort):
        d.ended(cohort, failures([member.key for member in cohort.members], "storage", "No space\nleft on device"))

    with pytest.raises(UserError, match="No space left on device"):
        drain(driver(ledger), full)
    assert ledger.read() == {}
    again = driver(ledger)
    drain(again)
    assert again.trained == 15


def sizes(found: Driver) -> list[int]:
    """Hands out all waiting cohorts; returns the number of members of each."""
    cohorts = []
    while (cohort := found.next()) is not None:
        cohorts.append(len(cohort.members))
    return cohorts


def test_waiting_members_are_spread_when_nodes_come(ledger):
    found = Driver(Plan(SMALL, Overrides(only="grid")), ledger, retry_failed=False)
    found.begin(slots=2, pack=None)
    first = found.next()
    assert first is not None
    assert len(first.members) == 4
    found.resize(4)
    assert sizes(found) == [2, 1, 1]  # the cohort in training stays as it is, in one of the four slots


def test_waiting_members_are_packed_when_nodes_go(ledger):
    found = Driver(Plan(SMALL, Overrides(only="grid")), ledger, retry_failed=False)
    found.begin(slots=8, pack=None)
    found.resize(1)
    assert sizes(found) == [8]


def test_what_was_halved_stays_so_when_nodes_go(ledger):
    found = Driver(Plan(SMALL, Overrides(only="grid")), ledger, retry_failed=False)
    found.begin(slots=1, pack=None)
    cohort = found.next()
    assert cohort is not None
    found.ended(cohort, failures([member.key for member in cohort.members], "out_of_memory", ""))
    found.resize(1)
    assert sizes(found) == [4, 4]


def test_cohorts_become_smaller_when_few_are_left(ledger, monkeypatch):
    monkeypatch.setattr("sweeps.planning.schedule.GRAIN", 1.0)  # as if the models were large
    found = Driver(Plan(SMALL, Overrides(only="grid", seeds=16)), ledger, retry_failed=False)
    found.begin(slots=4, pack=None)
    handed_out = sizes(found)
    assert sum(handed_out) == 64
    assert handed_out[0] > 1
    assert handed_out == sorted(handed_out, reverse=True)
    assert handed_out[-4:] == [1, 1, 1, 1]  # at the end each slot trains one, and no slot waits for another


def test_cohorts_stay_whole_when_each_has_a_slot(ledger):
    found = Driver(Plan(SMALL, Overrides(only="grid", seeds=8)), ledger, retry_failed=False)
    found.begin(slots=4, pack=None)
    assert sizes(found) == [8, 8, 8, 8]


def test_members_that_were_trained_before_are_told_when_a_later_study_finds_them(ledger, drain):
    taking = dataclasses.replace(GRID, name="taking", grid=GRID.grid[1:], takes=(Winner("grid", ("optim.lr",)),))
    d = driver(ledger, Plan(Sweep("two", "x", (GRID, taking))))
    told = Told()
    d.listen(told)
    drain(d)
    later = [member for member in d.members() if member.study == "taking"]
    assert len(later) == 4
    assert {member.key for member in later} < {member.key for member in d.members() if member.study == "grid"}
    assert told.before == [(member.study, member.key) for member in later]
    assert len(told.now) == len(set(told.now)) == 8


class Told:
    """A listener that notes study and key of the members that it is told of."""

    def __init__(self) -> None:
        self.before: list[tuple[str, str]] = []
        self.now: list[tuple[str, str]] = []

    def found(self, members, rows) -> None:
        assert all(member.key in rows for member in members)
        self.before += [(member.study, member.key) for member in members]

    def tick(self) -> None:
        pass

    def started(self, members) -> None:
        pass

    def progressed(self, members, since, history) -> None:
        pass

    def ended(self, members, rows) -> None:
        self.now += [(member.study, member.key) for member in members]
