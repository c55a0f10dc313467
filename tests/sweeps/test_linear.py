"""The driver's work for a cohort does not grow with the sweep; it is measured in function calls."""

import cProfile
import dataclasses
import io
from pathlib import Path

import pytest
from rich.console import Console
from scripted import BASE, GRID, SEARCH, result

from search_spaces.space import Axis, Study, Sweep, Winner
from sweeps.driver.driver import Driver
from sweeps.driver.json_log import JsonLog
from sweeps.driver.progress import Progress
from sweeps.planning.plan import Plan
from sweeps.records.ledger import Ledger
from sweeps.records.storage import Storage
from sweeps.tracking.tracker import Tracker

PACK = 4


def sweep(rates: int) -> Sweep:
    """Two members for each of `rates` learning rates, and studies that wait for them."""
    many = dataclasses.replace(GRID, grid=(Axis("optim.lr", tuple(0.1 / (1 + index) for index in range(rates))),))
    tuned = Study(
        name="tuned",
        title="Variances at the best rate",
        source="nowhere",
        base=BASE,
        grid=(Axis("likelihood.variance", (0.02, 0.2)),),
        takes=(Winner("grid", ("optim.lr",)),),
    )
    return Sweep("linear", "", (many, tuned, SEARCH))


@pytest.fixture
def calls(tmp_path, monkeypatch):
    """Counts function calls for recording a cohort and handing out the next one, with all listeners."""
    monkeypatch.setattr(Tracker, "_work", lambda self: None)

    def count(rates: int) -> int:
        plan, place = Plan(sweep(rates)), Storage(str(tmp_path / str(rates)), "linear")
        place.prepare()
        driver = Driver(plan, Ledger(place), retry_failed=False)
        tracker = Tracker("http://127.0.0.1:9", plan, place, Path("data"))
        driver.listen(Progress(Console(file=io.StringIO()), plan), tracker, JsonLog(io.StringIO()))
        driver.begin(slots=1, pack=PACK)
        calls: dict[int, int] = {}
        cohort = driver.next()
        for _ in range(6):  # the first cohorts include work that is done once
            assert cohort is not None
            results = [result(member) for member in cohort.members]
            profile = cProfile.Profile()
            profile.runcall(driver.ended, cohort, results)
            size, cohort = len(cohort.members), profile.runcall(driver.next)
            calls[size] = sum(entry.callcount for entry in profile.getstats())
        return calls[PACK]  # not the search's batch, after which all waiting members are grouped again

    return count


def test_a_cohort_costs_the_driver_no_more_in_a_sweep_twenty_times_as_large(calls):
    assert calls(320) < 1.1 * calls(16)
