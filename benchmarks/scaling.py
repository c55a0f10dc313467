"""Replays a sweep on simulated GPUs: how long it takes, how busy they are, what it costs, and what holds it up.

    python -m sweeps.rates paper_grid --device cuda       # once, on such a GPU
    python benchmarks/scaling.py paper_grid --rates runs/rates-cuda.json --gpus 1 8 64 512

The schedule is the real one: the driver of a run forms the cohorts, waits for what members take from others, and
writes its ledger. Its own time is measured while it does so. Only training is replaced, by rates that were measured: a
cohort of M members takes as long as M times the rate of one, or as the number that the rate was measured with where M
is less, for a GPU is no faster with fewer. GPUs come one a node, all at once; any may be taken away at any moment.
"""

import argparse
import heapq
import json
import random
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from sweeps.errors import UserError
from sweeps.folder import find_sweep
from sweeps.ledger import Ledger
from sweeps.plan import Cohort, Overrides, Plan
from sweeps.rates import Rates
from sweeps.storage import Storage
from trainables.data.sizes import size_of
from trainables.rates import program_key

T = TypeVar("T")


@dataclass(frozen=True)
class Costs:
    """What is not training. Times in seconds, prices in dollars an hour."""

    node_start_s: float = 240.0
    """From asking for a node to its first process: a machine that boots and installs."""
    process_start_s: float = 12.0
    """Of the process that trains, once a node."""
    request_s: float = 0.1
    """Of a storage that is not this machine's, for each time that the driver hands out or records a cohort."""
    checkpoint_s: float = 60.0
    """What was trained since the last checkpoint is lost with a node."""
    preemptions_per_hour: float = 0.05
    """Of each node."""
    gpu_price: float = 0.5
    head_price: float = 0.2


@dataclass
class Replay:
    """What became of a sweep. GPU-seconds by what they were spent on."""

    gpus: int
    cohorts: int = 0
    makespan_s: float = 0.0
    spent: Counter[str] = field(default_factory=Counter)

    @property
    def utilization(self) -> float:
        return self.spent["training"] / (self.gpus * self.makespan_s)

    @property
    def bottleneck(self) -> str:
        """What most GPU-seconds went to; "training" means that more GPUs help."""
        return max(self.spent, key=lambda what: self.spent[what])

    @property
    def holdup(self) -> str:
        """What most of the rest of them went to."""
        return max((what for what in self.spent if what != "training"), key=lambda what: self.spent[what])

    def dollars(self, costs: Costs) -> float:
        return (self.gpus * costs.gpu_price + costs.head_price) * self.makespan_s / 3600


def replay(plan: Plan, ledger: Ledger, seconds: Callable[[Cohort], float], gpus: int, costs: Costs) -> Replay:
    """Runs a sweep in simulated time.

    Args:
        ledger: an empty one.
        seconds: how long a cohort trains.
    """
    from sweeps.driver import Driver

    chance = random.Random(0)
    driver = Driver(plan, ledger, retry_failed=False)
    driver.begin(slots=gpus, pack=None)
    found = Replay(gpus)
    events: list[tuple[float, int, str, Cohort | None]] = []  # when, tie, what happens, to which cohort
    tie = 0
    free: deque[tuple[float, bool]] = deque()  # since when, and whether its process must be started yet
    lost: deque[tuple[Cohort, float]] = deque()  # with the seconds that are left
    left: dict[str, float] = {}
    driver_free = 0.0

    def after(when: float, what: str, cohort: Cohort | None = None) -> None:
        nonlocal tie
        tie += 1
        heapq.heappush(events, (when, tie, what, cohort))

    def drive(call: Callable[[], T]) -> T:
        """The driver does one thing at a time, and takes as long as it takes here."""
        nonlocal driver_free
        began = time.process_time()
        result = call()
        driver_free = max(driver_free, now) + time.process_time() - began + costs.request_s
        return result

    for _ in range(gpus):
        after(costs.node_start_s, "node")
    found.spent["starting nodes"] += gpus * costs.node_start_s
    while events:
        now, _, what, cohort = heapq.heappop(events)
        found.makespan_s = now
        if what == "ended":
            assert cohort is not None
            results = [_result(plan, member) for member in cohort.members]
            drive(lambda cohort=cohort, results=results: driver.ended(cohort, results))
            free.append((now, False))
        elif what == "preempted":
            assert cohort is not None
            lost.append((cohort, left[cohort.key]))
            found.spent["starting nodes"] += costs.node_start_s
            after(now + costs.node_start_s, "node")
        else:
            free.append((now, True))
        while free:
            again = lost.popleft() if lost else None
            given = again[0] if again else drive(driver.next)
            if given is None:
                break
            since, fresh = free.popleft()
            found.cohorts += again is None
            begins = max(now, driver_free)
            found.spent["waiting for cohorts"] += now - since
            found.spent["waiting for the driver"] += begins - now
            if fresh:
                found.spent["starting processes"] += costs.process_start_s
                begins += costs.process_start_s
            duration = again[1] if again else seconds(given)
            hourly = costs.preemptions_per_hour
            taken = chance.expovariate(hourly / 3600) if hourly else float("inf")
            if taken >= duration:
                found.spent["training"] += duration
                after(begins + duration, "ended", given)
            else:
                saved = taken - taken % costs.checkpoint_s
                found.spent["training"] += saved
                found.spent["training again"] += taken - saved
                left[given.key] = duration - saved
                after(begins + taken, "preempted", given)
        if driver.exhausted() and not lost:
            break
    found.spent["waiting for cohorts"] += sum(found.makespan_s - since for since, _ in free)
    return found


def _result(plan: Plan, member: Any) -> dict[str, Any]:
    """A made-up end of a training; searches and winners take it for true."""
    value = int(member.key[:8], 16) / 2**32
    names = {study.metric for study in plan.studies} | {"elbo", "bits_per_dim"}
    return {
        "key": member.key,
        "status": "finished",
        "reason": None,
        "epochs": member.config.epochs,
        "wall_s": 1.0,
        "metrics": dict.fromkeys(names, value),
        "history": {name: [value] for name in names},
    }


def by_rates(rates: Rates, data_dir: Path) -> Callable[[Cohort], float]:
    """How long cohorts train at measured rates; raises UserError for a kind that was not measured."""

    def seconds(cohort: Cohort) -> float:
        config = cohort.members[0].config
        one = rates.seconds(config, data_dir)
        if one is None:
            raise UserError("the rates lack some kind of training; measure them with: python -m sweeps.rates NAME")
        rate = rates.rates[program_key(config, size_of(config.data.name, data_dir).image_shape)]
        return one * max(len(cohort.members), rate.members)

    return seconds


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints a line for each number of GPUs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("sweep")
    parser.add_argument("--rates", type=Path, required=True, help="a file of python -m sweeps.rates")
    parser.add_argument("--only", help="only the studies whose name matches")
    parser.add_argument("--gpus", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32, 64, 128, 256, 512])
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    parser.add_argument("--json", type=Path, help="where to write all of it")
    for name, value in asdict(Costs()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=float, default=value, help=f"default {value}")
    given = parser.parse_args(arguments)
    costs = Costs(**{name: getattr(given, name) for name in asdict(Costs())})
    plan = Plan(find_sweep(given.sweep), Overrides(only=given.only))
    rates = Rates.model_validate_json(given.rates.read_bytes())
    print(f"{given.sweep}, {plan.total()} members, at rates of {rates.machine}")
    print(f"{'GPUs':>5} {'cohorts':>8} {'hours':>8} {'busy':>6} {'dollars':>8}  bottleneck")
    found = []
    for gpus in given.gpus:
        with tempfile.TemporaryDirectory() as folder:
            place = Storage(folder, given.sweep)
            place.prepare()
            one = replay(plan, Ledger(place), by_rates(rates, given.data_dir), gpus, costs)
        found.append(asdict(one) | {"utilization": one.utilization, "dollars": one.dollars(costs)})
        what = one.bottleneck if one.bottleneck != "training" else f"GPUs; then {one.holdup}"
        print(
            f"{gpus:5} {one.cohorts:8} {one.makespan_s / 3600:8.2f} {one.utilization:6.0%} {one.dollars(costs):8.0f}  "
            f"{what}",
            flush=True,
        )
    if given.json:
        given.json.write_text(json.dumps({"sweep": given.sweep, "costs": asdict(costs), "replays": found}, indent=1))


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"scaling.py: {error}")
