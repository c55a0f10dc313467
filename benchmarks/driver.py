"""Compares the driver's cost a member in sweeps of 100 to 100,000 members, whose training does nothing.

    python benchmarks/driver.py --members 100 10000 100000 --mlflow-members 100 1000 --json driver.json

The code is that of a run, without Ray and training: made-up results of 8 metrics and 20 epochs arrive in cohorts of
64. Each size has its own processes: one plans and trains, the next resumes the finished sweep, and two more do the
same with MLflow in an SQLite database. Takes about three minutes on one core.

Prints for each part and size: wall time, processor time (of all threads), milliseconds of it a member, the ratio to
the size before (about 1 if the cost is linear), and the peak memory of the process, imports included.
"""

import contextlib
import io
import logging
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from measuring import Report, begin, parser, peak_mib, write
from rich.console import Console

from search_spaces import Sweep
from search_spaces.space import Axis, Study
from sweeps.analysis.summary import summary
from sweeps.driver.driver import Driver
from sweeps.driver.progress import Progress
from sweeps.planning.plan import Plan, PlannedCohort
from sweeps.records.ledger import Ledger
from sweeps.records.storage import Storage
from sweeps.report.write import write_tables
from sweeps.tracking.tracker import Tracker
from sweeps.tracking.uri import tracking_uri_of
from trainables.reports import Outcome

EPOCHS, PACK, SLOTS = 20, 64, 8
METRICS = ("elbo", "kl", "bits_per_dim", "mse", "train_elbo", "train_kl", "test_elbo", "test_kl")
SIZES, SEEDS = (4, 8, 16, 32), (0, 1, 2, 3, 4)
BASE = {
    "latent": {"family": "gaussian"},
    "encoder": {"name": "mlp", "hidden": (8,)},
    "decoder": {"name": "linear"},
    "likelihood": {"name": "gaussian_fixed"},
    "estimator": {"name": "silent"},
    "optim": {"name": "adam"},
    "epochs": EPOCHS,
    "batch_size": 500,
}


def sweep_of(members: int) -> Sweep:
    """A grid of so many members, rounded down to a multiple of 20: four shapes, five seeds, the rest learning rates."""
    count = max(1, members // (len(SIZES) * len(SEEDS)))
    rates = tuple(1e-5 * 1000 ** (index / count) for index in range(count))
    grid = (Axis("latent.size", SIZES), Axis("optim.lr", rates))
    study = Study(name="grid", title="A grid", source="nowhere", base=BASE, grid=grid, seeds=SEEDS)
    return Sweep("nothing", "Training that does nothing", (study,))


def results(cohort: PlannedCohort) -> list[Outcome]:
    """Made-up results, as a worker reports them."""
    outcomes = []
    for member in cohort.members:
        numbers = np.random.default_rng(int(member.key, 16)).random((len(METRICS), EPOCHS))
        history = dict(zip(METRICS, numbers.tolist(), strict=True))
        metrics = {name: each[-1] for name, each in history.items()}
        outcomes.append(
            Outcome(key=member.key, status="finished", epochs=EPOCHS, wall_s=1.0, metrics=metrics, history=history)
        )
    return outcomes


class Parts:
    """The times of the parts of a process: a row each. A part that is repeated adds to its row."""

    def __init__(self):
        self.rows: dict[str, Report] = {}

    @contextlib.contextmanager
    def part(self, name: str, clock: Callable[[], float] = time.process_time) -> Iterator[None]:
        wall, processor = time.perf_counter(), clock()
        yield
        row = self.rows.setdefault(name, {"part": name, "wall_s": 0.0, "processor_s": 0.0})
        row["wall_s"] += time.perf_counter() - wall
        row["processor_s"] += clock() - processor
        row["peak_mib"] = peak_mib()


def trained(folder: str, members: int) -> Parts:
    """Plans a sweep and trains all of it."""
    parts = warm()
    with parts.part("plan"):
        plan = Plan(sweep_of(members))
    with parts.part("start"):
        driver, storage = started(folder, plan)
    train(driver, parts, "member")
    with parts.part("outputs"):
        outputs(driver, storage)
    return parts


def resumed(folder: str, members: int) -> Parts:
    """Resumes a finished sweep, planning included."""
    parts = warm()
    with parts.part("resume"):
        driver, _ = started(folder, Plan(sweep_of(members)))
    assert not driver.todo
    return parts


def tracked(folder: str, members: int) -> Parts:
    """Trains a sweep and writes it to MLflow. Training waits only for the part `member beside MLflow`."""
    from sweeps.tracking.runs import create_database

    parts = warm()
    plan = Plan(sweep_of(members))
    driver, storage = started(folder, plan)
    uri = tracking_uri_of(storage, None)
    create_database(uri)
    with parts.part("MLflow"):
        tracker = Tracker(uri, plan, storage, Path("data"))
        driver.listen(tracker)
        tracker.start(driver.members(), driver.settled())
        train(driver, parts, "member beside MLflow", clock=time.thread_time)
        close(tracker)
    return parts


def tracked_again(folder: str, members: int) -> Parts:
    """Resumes a sweep whose runs are all in MLflow."""
    import sweeps.tracking.runs  # noqa: F401  # takes seconds

    parts = warm()
    plan = Plan(sweep_of(members))
    driver, storage = started(folder, plan)
    with parts.part("MLflow resume"):
        tracker = Tracker(tracking_uri_of(storage, None), plan, storage, Path("data"))
        tracker.start(driver.members(), driver.settled())
        close(tracker)
    return parts


def warm() -> Parts:
    """Does what a process does once, so that it counts for no part."""
    for name in ("sweeps", "mlflow", "alembic"):  # there is no checkpoint to register a model from
        logging.getLogger(name).setLevel(logging.ERROR)
    Plan(sweep_of(1))
    return Parts()


def started(folder: str, plan: Plan) -> tuple[Driver, Storage]:
    """A driver that has read the ledger and formed its cohorts, as `sweeps.driver.launch` starts it."""
    storage = Storage(folder, plan.sweep.name)
    storage.prepare()
    driver = Driver(plan, Ledger(storage), retry_failed=False)
    progress = Progress(Console(file=io.StringIO()), plan)
    progress.found(driver.members(), driver.settled())
    driver.listen(progress)
    driver.begin(slots=SLOTS, pack=PACK)
    return driver, storage


def train(driver: Driver, parts: Parts, name: str, **options: Any) -> None:
    """Hands out and takes back every cohort; only the driver's own time counts."""
    while True:
        with parts.part(name, **options):
            cohort = driver.next()
        if cohort is None:
            return
        made_up = results(cohort)
        with parts.part(name, **options):
            driver.ended(cohort, made_up)


def outputs(driver: Driver, storage: Storage) -> None:
    """Writes the tables of a run and makes its summary; the report and its figures are left out."""
    members, rows = driver.members(), driver.current()
    write_tables(storage, members, rows, {})
    summary(driver.plan, members, rows, driver.trained)


def close(tracker: Tracker) -> None:
    """Waits until MLflow has everything; raises RuntimeError if something is missing."""
    tracker.close("FINISHED", timeout_s=24 * 3600.0)
    if tracker.problem:
        raise RuntimeError(tracker.problem)


def measured(members: int, parts: tuple[Callable[[str, int], Parts], ...]) -> list[Report]:
    """The rows of parts that share a folder, each in a process of its own."""
    rows: list[Report] = []
    with tempfile.TemporaryDirectory() as folder:
        for part in parts:
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
                rows += process.submit(part, folder, members).result().rows.values()
    size = Plan(sweep_of(members)).total()
    return [row | {"members": size, "member_ms": 1000 * row["processor_s"] / size} for row in rows]


def main() -> None:
    """Measures, prints and writes."""
    arguments = parser(__doc__, trains=False)
    arguments.add_argument("--members", type=int, nargs="+", default=[100, 10_000, 100_000], metavar="N")
    arguments.add_argument("--mlflow-members", type=int, nargs="*", default=[100, 1000], metavar="N")
    arguments.add_argument("--seconds", type=float, default=1200.0, help="start no larger size after this time")
    args = arguments.parse_args()
    _, report = begin(args)
    print(f"{'part':<22} {'members':>8} {'wall s':>8} {'processor s':>12} {'ms a member':>12} {'ratio':>6} {'MiB':>6}")
    before: dict[str, float] = {}
    sizes = [(members, (trained, resumed)) for members in args.members]
    sizes += [(members, (tracked, tracked_again)) for members in args.mlflow_members]
    began = time.monotonic()
    for members, parts in sizes:
        if time.monotonic() - began > args.seconds:
            print(f"{members} members are left out, after {args.seconds:.0f} s")
            continue
        for row in measured(members, parts):
            name, cost = row["part"], row["member_ms"]
            ratio = cost / before[name] if name in before else None
            before[name] = cost
            print(
                f"{name:<22} {row['members']:8} {row['wall_s']:8.2f} {row['processor_s']:12.2f} {cost:12.3f} "
                f"{f'{ratio:.2f}' if ratio else '':>6} {row['peak_mib']:6.0f}",
                flush=True,
            )
            report["rows"].append(row | {"ratio": ratio})
    write(args.json, report)


if __name__ == "__main__":
    main()
