"""Replays a sweep on simulated GPUs: its time, its dollars, how busy the GPUs are, and what keeps them waiting.

    python benchmarks/scaling.py paper_grid --rates sweeps/measured/cpu.json
    python benchmarks/scaling.py paper_grid --roofline L4 H200 --gpus 1 8 64 512
    python benchmarks/scaling.py paper_grid --roofline L4 --slow-share 0.5 --slow-factor 3

The schedule is the real one: the driver of a run forms the cohorts, waits for winners of other studies, and writes
its ledger. Its own time is measured. Only training is replaced, in one of two ways:

--rates: measured rates (python -m sweeps.rates). A cohort of M members takes M times as long as one member. If the
rate was measured with more than M members, it takes as long as those.

--roofline: the peak of a device, and an assumed fraction of it. A step of M members takes the time of its operations
or of its optimizer's memory traffic, whichever is longer, but never less than a floor. None of it was measured.

Each GPU is a node of its own. All start at once, and each can be taken away at any moment. A node that was idle for a
while is given back and no longer paid for; it is started again when there is work. Takes half a minute of processor
time for each device.

Prints two bounds first: the work, and the longest chain of trainings that wait for each other. Then for each number
of GPUs: cohorts, hours, the busy share of all GPU time and of the paid GPU time, GPU-hours of training, dollars, and
the bottleneck.
"""

import argparse
import heapq
import math
import random
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from measuring import parser, write
from packing import OPTIMIZER_BYTES

from sweeps.errors import UserError
from sweeps.planning.known_rates import Rates
from sweeps.planning.plan import Member, Overrides, Plan, PlannedCohort
from sweeps.planning.saved import find_sweep
from sweeps.records.ledger import Ledger
from sweeps.records.storage import Storage
from trainables.cost.operations import operations
from trainables.cost.size import parameters
from trainables.cost.steps import batches, program_key
from trainables.data.sizes import size_of
from trainables.reports import Outcome

T = TypeVar("T")
Seconds = Callable[[PlannedCohort], float]
"""How long a cohort trains."""


@dataclass(frozen=True)
class Costs:
    """Everything but training. Times in seconds, prices in dollars an hour."""

    node_start_s: float = 240.0
    """From the request for a node to its first process: the machine boots and installs."""
    process_start_s: float = 12.0
    """Start of the training process, once a node."""
    compile_s: float = 20.0
    """Compiling a step, once for each process, shape and number of members."""
    idle_release_s: float = 600.0
    """A node is given back after so long without work."""
    request_s: float = 0.1
    """A request to a remote storage; the driver makes one for each cohort that it hands out or records."""
    checkpoint_s: float = 60.0
    """Time between checkpoints. A lost node loses the training since the last one."""
    preemptions_per_hour: float = 0.05
    """How often a node is taken away."""
    slow_share: float = 0.0
    """Share of GPUs that are slow, by `slow_factor`."""
    slow_factor: float = 3.0
    gpu_price: float = 0.5
    head_price: float = 0.2


@dataclass(frozen=True)
class Roofline:
    """A device as its data sheet describes it, and the assumed fraction of it that training reaches.

    operations_per_s: float32, without tensor cores. step_floor_s: the shortest step of a cohort, since a CUDA graph
    replays some hundred kernels of a few microseconds each.
    """

    operations_per_s: float
    bytes_per_s: float
    gpu_price: float
    fraction: float = 0.3
    step_floor_s: float = 1e-3

    def seconds(self, data_dir: Path) -> Seconds:
        """How long cohorts train."""

        def of(cohort: PlannedCohort) -> float:
            config = cohort.members[0].config
            size = size_of(config.data.name, data_dir)
            count = operations(config, size.image_shape)
            moved = OPTIMIZER_BYTES * parameters(config, size.image_shape)
            steps, evaluations = batches(config, size.limited(config.data.limit))
            members = len(cohort.members)
            return steps * self._batch_s(members, count.step, moved) + evaluations * self._batch_s(
                members, count.evaluation, 0
            )

        return of

    def _batch_s(self, members: int, count: int, moved: int) -> float:
        one = max(count / self.operations_per_s, moved / self.bytes_per_s) / self.fraction
        return max(self.step_floor_s, members * one)


FREE = Costs(node_start_s=0, process_start_s=0, compile_s=0, request_s=0, preemptions_per_hour=0)
"""No costs but training."""

ROOFLINES = {"L4": Roofline(30.3e12, 300e9, gpu_price=0.5), "H200": Roofline(67e12, 4.8e12, gpu_price=4.0)}
"""NVIDIA's data sheets; prices are roughly those of spot instances."""

SPENT = (
    "training",
    "training again",
    "compiling",
    "starting nodes",
    "starting processes",
    "waiting for the driver",
    "waiting for cohorts",
    "given back",
)
"""The uses of GPU-seconds."""


@dataclass
class Replay:
    """The result of one simulated run. spent: GPU-seconds by `SPENT`."""

    gpus: int
    cohorts: int = 0
    makespan_s: float = 0.0
    spent: dict[str, float] = field(default_factory=lambda: dict.fromkeys(SPENT, 0.0))

    @property
    def utilization(self) -> float:
        """Share of all GPUs' time, until the last cohort ended, that went to training."""
        return self.spent["training"] / (self.gpus * self.makespan_s)

    @property
    def paid_s(self) -> float:
        """GPU-seconds that cost money: all but those of nodes that were given back."""
        return self.gpus * self.makespan_s - self.spent["given back"]

    @property
    def paid_utilization(self) -> float:
        return self.spent["training"] / self.paid_s

    @property
    def bottleneck(self) -> str:
        """The largest use of GPU-seconds; "training" means that more GPUs help."""
        return self._most(SPENT)

    @property
    def holdup(self) -> str:
        """The largest use of GPU-seconds besides training."""
        return self._most(SPENT[1:])

    def _most(self, among: Sequence[str]) -> str:
        # Nodes are given back because there are no cohorts for them.
        waited = {
            "waiting for cohorts": self.spent["waiting for cohorts"] + self.spent["given back"],
            "given back": 0.0,
        }
        spent = self.spent | waited
        return max(among, key=lambda what: spent[what])

    def dollars(self, costs: Costs) -> float:
        return (self.paid_s * costs.gpu_price + self.makespan_s * costs.head_price) / 3600


class Node(NamedTuple):
    """A machine with one GPU. slower: factor of its training time. since: when it became free."""

    slower: float
    since: float
    programs: set[tuple[str, int]] | None = None
    """Shape and number of members of each compiled step; None before the process is started."""


def replay(plan: Plan, ledger: Ledger, seconds: Seconds, gpus: int, costs: Costs) -> Replay:
    """Runs a sweep in simulated time.

    Args:
        ledger: an empty one.
    """
    from sweeps.driver.driver import Driver

    chance = random.Random(0)
    driver = Driver(plan, ledger, retry_failed=False)
    driver.begin(slots=gpus, pack=None)
    found = Replay(gpus)
    spent = found.spent
    events: list[tuple[float, int, Callable[[], None]]] = []  # when, tie, what happens then
    ties = count()
    now = driver_free = 0.0
    free: list[Node] = []
    lost: deque[tuple[PlannedCohort, float]] = deque()  # with the seconds that are left on a GPU that is not slower

    def at(when: float, what: Callable[[], None]) -> None:
        heapq.heappush(events, (when, next(ties), what))

    def drive(call: Callable[[], T]) -> T:
        """Calls the driver, which does one thing at a time; its time is the processor time measured here."""
        nonlocal driver_free
        began = time.process_time()
        result = call()
        driver_free = max(driver_free, now) + time.process_time() - began + costs.request_s
        return result

    def start(slower: float) -> None:
        spent["starting nodes"] += costs.node_start_s
        ready = now + costs.node_start_s
        at(ready, lambda: free.append(Node(slower, ready)))

    def idle(node: Node) -> bool:
        """Counts the idle time of a node; returns whether the node was given back meanwhile."""
        waited = now - node.since
        spent["waiting for cohorts"] += min(waited, costs.idle_release_s)
        spent["given back"] += max(0.0, waited - costs.idle_release_s)
        return waited > costs.idle_release_s

    def ended(node: Node, cohort: PlannedCohort) -> None:
        results = [_result(plan, member) for member in cohort.members]
        drive(lambda: driver.ended(cohort, results))
        free.append(node._replace(since=now))

    def preempted(node: Node, cohort: PlannedCohort, left: float) -> None:
        lost.append((cohort, left))
        start(node.slower)

    def train(node: Node, cohort: PlannedCohort, left: float) -> None:
        begins = max(now, driver_free)
        spent["waiting for the driver"] += begins - now
        given_back = idle(node)
        if given_back:
            spent["starting nodes"] += costs.node_start_s
            begins += costs.node_start_s
        if given_back or node.programs is None:
            spent["starting processes"] += costs.process_start_s
            begins += costs.process_start_s
            node = node._replace(programs=set())
        assert node.programs is not None
        if (program := (cohort.members[0].shape, len(cohort.members))) not in node.programs:
            spent["compiling"] += costs.compile_s
            begins += costs.compile_s
            node.programs.add(program)
        duration, hourly = left * node.slower, costs.preemptions_per_hour
        taken = chance.expovariate(hourly / 3600) if hourly else math.inf
        if taken >= duration:
            spent["training"] += duration
            at(begins + duration, lambda: ended(node, cohort))
        else:
            saved = taken - taken % costs.checkpoint_s
            spent["training"] += saved
            spent["training again"] += taken - saved
            at(begins + taken, lambda: preempted(node, cohort, left - saved / node.slower))

    for index in range(gpus):
        start(costs.slow_factor if index < costs.slow_share * gpus else 1.0)
    while events and not (driver.exhausted() and not lost):
        now, _, happens = heapq.heappop(events)
        happens()
        while free:
            if lost:
                train(free.pop(), *lost.popleft())
            elif (cohort := drive(driver.next)) is not None:
                found.cohorts += 1
                train(free.pop(), cohort, seconds(cohort))  # on the node that was free last: others may be given back
            else:
                break
    found.makespan_s = now
    for node in free:
        idle(node)
    return found


def _result(plan: Plan, member: Member) -> Outcome:
    """A made-up result; searches and winners treat it as real."""
    value = int(member.key[:8], 16) / 2**32
    names = {study.metric for study in plan.studies} | {"elbo", "bits_per_dim"}
    return Outcome(
        key=member.key,
        status="finished",
        epochs=member.config.epochs,
        wall_s=1.0,
        metrics=dict.fromkeys(names, value),
        history={name: [value] for name in names},
    )


def by_rates(rates: Rates, data_dir: Path) -> Seconds:
    """Cohort to its training time at measured rates; raises UserError for a kind without a rate."""
    kinds: dict[str, tuple[float, int]] = {}

    def seconds(cohort: PlannedCohort) -> float:
        first = cohort.members[0]
        if first.shape not in kinds:
            one = rates.seconds(first.config, data_dir)
            if one is None:
                raise UserError("the rates lack some kind of training; measure them with: python -m sweeps.rates NAME")
            rate = rates.rates[program_key(first.config, size_of(first.config.data.name, data_dir).image_shape)]
            kinds[first.shape] = one, rate.members
        one, together = kinds[first.shape]
        return one * max(len(cohort.members), together)

    return seconds


def replays(plan: Plan, seconds: Seconds, gpus: Sequence[int], costs: Costs) -> Iterator[Replay]:
    """A replay for each number of GPUs, each with its own temporary ledger."""
    for number in gpus:
        with tempfile.TemporaryDirectory() as folder:
            place = Storage(folder, plan.sweep.name)
            place.prepare()
            yield replay(plan, Ledger(place), seconds, number, costs)


def show(found: Iterable[Replay], costs: Costs) -> list[dict[str, Any]]:
    """Prints a table with a line for each replay and returns its rows."""
    print(f"{'GPUs':>5} {'cohorts':>8} {'hours':>9} {'busy':>5} {'paid':>5} {'GPU-h':>8} {'dollars':>8}  bottleneck")
    rows = []
    for one in found:
        what = one.bottleneck if one.bottleneck != "training" else f"GPUs; then {one.holdup}"
        print(
            f"{one.gpus:5} {one.cohorts:8} {one.makespan_s / 3600:9.2f} {one.utilization:5.0%} "
            f"{one.paid_utilization:5.0%} {one.spent['training'] / 3600:8.0f} {one.dollars(costs):8.0f}  {what}",
            flush=True,
        )
        figures = {"utilization": one.utilization, "paid": one.paid_utilization, "dollars": one.dollars(costs)}
        rows.append(asdict(one) | figures)
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints a table for each device."""
    options = parser(__doc__, trains=False)
    options.add_argument("sweep")
    devices = options.add_mutually_exclusive_group(required=True)
    devices.add_argument("--rates", type=Path, nargs="+", default=[], help="files of python -m sweeps.rates")
    devices.add_argument("--roofline", nargs="+", default=[], choices=list(ROOFLINES), help="devices, not measured")
    options.add_argument("--fraction", type=float, default=Roofline.fraction, help="share of the peak that is reached")
    options.add_argument("--step-floor-s", type=float, default=Roofline.step_floor_s, help="no step is shorter")
    options.add_argument("--only", help="only the studies that match, and the studies they depend on")
    options.add_argument("--gpus", type=int, nargs="+", default=[1, 8, 64, 512])
    options.add_argument("--data-dir", type=Path, default=Path("data"))
    for name, value in asdict(Costs()).items():
        options.add_argument(f"--{name.replace('_', '-')}", type=float, help=f"default {value:g}")
    given = options.parse_args(arguments)
    changed = {name: getattr(given, name) for name in asdict(Costs()) if getattr(given, name) is not None}
    plan = Plan(find_sweep(given.sweep), Overrides(only=given.only))
    replayed = {}
    for title, seconds, price in _devices(given):
        costs = replace(Costs(gpu_price=price), **changed)
        print(f"{given.sweep}, {plan.total()} members, {title}")
        alone, everywhere = replays(plan, seconds, [1, 2 * plan.total()], FREE)
        work, span = alone.spent["training"], everywhere.makespan_s
        print(
            f"work {work / 3600:.0f} GPU-h, longest chain of trainings that wait for each other {span / 3600:.2f} h: "
            f"at most {work / span:.0f} GPUs can be busy all the time"
        )
        rows = show(replays(plan, seconds, given.gpus, costs), costs)
        replayed[title] = {"costs": asdict(costs), "work_s": work, "span_s": span, "replays": rows}
    write(given.json, {"sweep": given.sweep, "devices": replayed})


def _devices(given: argparse.Namespace) -> Iterator[tuple[str, Seconds, float]]:
    """The requested devices: title, training time of a cohort, price of a GPU."""
    for path in given.rates:
        rates = Rates.model_validate_json(path.read_bytes())
        yield f"at measured rates of {rates.machine}", by_rates(rates, given.data_dir), Costs.gpu_price
    for name in given.roofline:
        roofline = replace(ROOFLINES[name], fraction=given.fraction, step_floor_s=given.step_floor_s)
        title = (
            f"assumed: {name} at {roofline.fraction:.0%} of its peak, no step under {1e3 * roofline.step_floor_s:g} ms"
        )
        yield title, roofline.seconds(given.data_dir), roofline.gpu_price


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"scaling.py: {error}")
