"""benchmarks/scaling.py replays sweeps on simulated GPUs; the tests use cases with known results."""

import json
import math
from itertools import pairwise
from pathlib import Path

import pytest
from scripted import BASE, SMALL

from search_spaces.space import Study, Sweep, Winner
from sweeps.planning.plan import Overrides, Plan, PlannedCohort
from sweeps.planning.schedule import Workload
from sweeps.records.ledger import Ledger
from sweeps.records.storage import Storage
from trainables.cost.operations import operations
from trainables.cost.size import parameters


@pytest.fixture
def scaling(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    import scaling

    return scaling


@pytest.fixture
def replayed(scaling, tmp_path):
    """Replays a plan with the given costs; only training takes time."""
    times = iter(range(1000))

    def run(plan: Plan, seconds, gpus: int, **costs: float):
        place = Storage(str(tmp_path / str(next(times))), plan.sweep.name)
        place.prepare()
        free = dict.fromkeys(
            ("node_start_s", "process_start_s", "compile_s", "request_s", "preemptions_per_hour"), 0.0
        ) | {"idle_release_s": math.inf}
        return scaling.replay(plan, Ledger(place), seconds, gpus, scaling.Costs(**(free | costs)))

    return run


@pytest.fixture
def replay(replayed):
    """Replays the eight members of a grid, or all of SMALL, at 100 s a member."""
    return lambda gpus, only="grid", **costs: replayed(Plan(SMALL, Overrides(only=only)), seconds, gpus, **costs)


def seconds(cohort: PlannedCohort) -> float:
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
    assert replay(8, compile_s=1000.0).bottleneck == "compiling"
    assert replay(8, request_s=1000.0).bottleneck == "waiting for the driver"
    assert replay(64).bottleneck == "waiting for cohorts"  # there are only eight members
    assert replay(64, idle_release_s=0.0).bottleneck == "waiting for cohorts"


def test_nodes_without_work_are_given_back_and_not_paid_for(replay, scaling):
    kept, gone = replay(64), replay(64, idle_release_s=50.0)
    assert kept.utilization == pytest.approx(gone.utilization, rel=0.05)
    assert kept.paid_utilization == kept.utilization
    assert gone.paid_utilization == pytest.approx(800 / (8 * 100 + 56 * 50), rel=0.05)
    prices = scaling.Costs(gpu_price=3600.0, head_price=0.0)
    assert gone.dollars(prices) == pytest.approx(8 * 100 + 56 * 50, rel=0.05)
    # A node that is needed again is started again: one waits for the other's batch, which takes two rounds.
    again = replay(2, only="searched", idle_release_s=50.0, node_start_s=10.0)
    assert again.spent["starting nodes"] > 2 * 10.0


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


def test_slow_gpus_take_longer(replay):
    assert replay(1, slow_share=1.0, slow_factor=3.0).makespan_s == pytest.approx(2400, abs=5)
    assert replay(2, slow_share=0.5, slow_factor=1.0).makespan_s == pytest.approx(400, abs=5)


# --- the schedule, against the previous rule --------------------------------------------------------------------------


def by_epochs(members, *, slots, pack=None, **unused) -> list[PlannedCohort]:
    """The previous rule: epochs of all models cost the same; each shape is split by its share of slots."""
    shapes: dict[str, list] = {}
    for member in members:
        shapes.setdefault(member.shape, []).append(member)
    epochs = {shape: sum(m.config.epochs for m in same) for shape, same in shapes.items()}
    share = sum(epochs.values()) / slots
    cohorts = []
    for shape, same in shapes.items():
        parts = min(len(same), math.ceil(epochs[shape] / share))
        bounds = [len(same) * part // parts for part in range(parts + 1)]
        cohorts += [PlannedCohort(tuple(same[a:b])) for a, b in pairwise(bounds)]
    return sorted(cohorts, key=lambda cohort: -sum(m.config.epochs for m in cohort.members))


def study(name: str, seeds: int, hidden: int, takes: tuple[str, ...] = (), **changes) -> Study:
    model = {"encoder": {"name": "mlp", "hidden": (hidden, hidden)}, "batch_size": 500}
    winners = tuple(Winner(other, ("optim.lr",)) for other in takes)
    base = BASE | model | changes
    return Study(name=name, title="", source="", base=base, seeds=tuple(range(seeds)), takes=winners)


MIXED = Sweep(
    "mixed",
    "Models of very different cost, one of which others wait for",
    (
        study("many", 64, 512),
        study("dear", 40, 1024),
        study("brief", 64, 128, epochs=20),
        study("first", 4, 1024, epochs=8),
        study("then", 4, 1024, takes=("first",), epochs=9),
        study("last", 4, 1024, takes=("then",), epochs=10),
    ),
)


def test_a_mixed_sweep_keeps_its_gpus_busy_and_by_epochs_it_would_not(replayed, monkeypatch):
    plan = Plan(MIXED)
    work = Workload(plan, Path("nowhere"))

    def by_operations(cohort: PlannedCohort) -> float:
        return work.of(*cohort.members) / 1e8

    now = replayed(plan, by_operations, 8)
    monkeypatch.setattr("sweeps.driver.driver.group", by_epochs)
    before = replayed(plan, by_operations, 8)
    assert now.spent["training"] == pytest.approx(before.spent["training"])
    assert now.utilization > 0.9
    assert before.utilization < 0.75


def test_gpus_of_mixed_speed_end_together_and_with_one_share_each_they_would_not(replayed, monkeypatch):
    plan = Plan(Sweep("even", "x", (study("many", 256, 1024),)))
    slow = {"slow_share": 0.5, "slow_factor": 3.0}
    # Half of the GPUs have a third of the speed.
    best = 100 * 256 / (4 + 4 / 3)
    assert replayed(plan, seconds, 8, **slow).makespan_s < 1.1 * best
    monkeypatch.setattr("sweeps.planning.schedule.SHARES", 1)
    assert replayed(plan, seconds, 8, **slow).makespan_s > 1.5 * best


# --- assumed devices -------------------------------------------------------------------------------------------------


def test_a_roofline_is_the_larger_of_arithmetic_memory_and_the_floor(scaling):
    plan = Plan(SMALL, Overrides(only="grid"))
    members = plan.members["grid"]
    config = members[0].config  # 2 epochs of 3 batches to train on and 1 to evaluate
    counted, learned = operations(config, (1, 8, 8)), parameters(config, (1, 8, 8))

    def took(count: int, operations_per_s: float, bytes_per_s: float, floor_s: float) -> float:
        device = scaling.Roofline(operations_per_s, bytes_per_s, 0.0, fraction=0.5, step_floor_s=floor_s)
        return device.seconds(Path("nowhere"))(PlannedCohort(members[:count]))

    assert took(1, math.inf, math.inf, 0.25) == 2 * (3 + 1) * 0.25
    assert took(8, 1e3, math.inf, 0.0) == pytest.approx(8 * 2 * (3 * counted.step + counted.evaluation) / 500)
    assert took(8, math.inf, 1e3, 0.0) == pytest.approx(8 * 2 * 3 * 28 * learned / 500)
    assert took(8, 1e12, math.inf, 0.25) == took(1, 1e12, math.inf, 0.25)  # no faster with fewer


def test_the_command_prints_what_it_assumes_and_what_bounds_the_sweep(scaling, capsys, tmp_path):
    out = tmp_path / "scaling.json"
    scaling.main(["quickstart", "--roofline", "L4", "--gpus", "2", "--fraction", "0.5", "--json", str(out)])
    printed = capsys.readouterr().out
    assert "assumed: L4 at 50% of its peak, no step under 1 ms" in printed
    assert "longest chain of trainings that wait for each other" in printed
    (device,) = json.loads(out.read_text())["devices"].values()
    (row,) = device["replays"]
    assert row["gpus"] == 2
    assert row["makespan_s"] >= max(device["span_s"], device["work_s"] / 2)
    with pytest.raises(SystemExit):
        scaling.main(["quickstart", "--gpus", "2"])
