"""benchmarks/scaling.py: the replay of a sweep on simulated GPUs, where the answer is known."""

from pathlib import Path

import pytest
from scripted import SMALL

from sweeps.ledger import Ledger
from sweeps.plan import Cohort, Overrides, Plan
from sweeps.storage import Storage

FREE = {"node_start_s": 0.0, "process_start_s": 0.0, "request_s": 0.0, "preemptions_per_hour": 0.0}


@pytest.fixture
def replay(monkeypatch, tmp_path):
    """Replays the eight members of a grid, or all of SMALL, at 100 s a member."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    import scaling

    def run(gpus: int, only: str | None = "grid", **costs: float):
        place = Storage(str(tmp_path / f"{gpus}-{only}-{sorted(costs)}"), "small")
        place.prepare()
        plan = Plan(SMALL, Overrides(only=only))
        return scaling.replay(plan, Ledger(place), seconds, gpus, scaling.Costs(**(FREE | costs)))

    return run


def seconds(cohort: Cohort) -> float:
    return 100.0 * len(cohort.members)


@pytest.mark.parametrize(("gpus", "makespan_s"), [(1, 800), (2, 400), (8, 100), (16, 100)])
def test_without_costs_the_work_is_divided(replay, gpus, makespan_s):
    found = replay(gpus)
    assert found.makespan_s == pytest.approx(makespan_s, abs=5)  # the driver's own time is real
    assert found.spent["training"] == pytest.approx(800)
    assert found.utilization == pytest.approx(800 / (gpus * makespan_s), rel=0.05)
    assert sum(found.spent.values()) == pytest.approx(gpus * found.makespan_s, rel=0.02)


def test_what_holds_up_is_named(replay):
    assert replay(1).bottleneck == "training"
    assert replay(8, node_start_s=1000.0).bottleneck == "starting nodes"
    assert replay(8, process_start_s=1000.0).bottleneck == "starting processes"
    assert replay(8, request_s=1000.0).bottleneck == "waiting for the driver"
    assert replay(64).bottleneck == "waiting for cohorts"  # there are eight


def test_batches_of_a_search_wait_for_the_one_before(replay):
    found = replay(8, only="searched")
    assert found.makespan_s == pytest.approx(300, abs=5)  # seven members in batches of three
    assert found.bottleneck == "waiting for cohorts"


def test_preempted_work_goes_on_from_its_checkpoint(replay):
    calm, rough = replay(2), replay(2, preemptions_per_hour=20.0, checkpoint_s=50.0, node_start_s=10.0)
    assert rough.spent["training"] == pytest.approx(calm.spent["training"])
    assert rough.spent["training again"] > 0
    assert rough.makespan_s > calm.makespan_s
    assert rough.cohorts == calm.cohorts
