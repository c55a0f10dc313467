"""Measures the report of sweeps of 10,000 and 100,000 members with made-up results.

    python benchmarks/report.py --members 10000 100000 --json report.json

One study: four latent sizes, five seeds, the rest learning rates; 8 metrics, 20 epochs; lines, learning curves and the
table of all configurations. One process makes the storage, another one writes the report as `python -m sweeps.report`
does. Takes half a minute for 10,000 members and some minutes for 100,000.

Prints the time of the report with the tables (results.parquet, history.parquet), its processor time, the peak memory of
its process, imports included, and the size of the page.
"""

import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from driver import EPOCHS, METRICS, sweep_of
from measuring import Report, begin, parser, peak_mib, write

from search_spaces import Sweep
from search_spaces.figures import Curves, Lines
from sweeps.planning.plan import Member, Plan
from sweeps.planning.unfold import unfold
from sweeps.records.ledger import Ledger, Row, UnchangedLedger, now
from sweeps.records.storage import Storage
from sweeps.report.write import REPORT, write_outputs

FILE = 1000
"""Members in a file of the ledger."""


def drawn(members: int) -> Sweep:
    """The sweep with its figures."""
    sweep = sweep_of(members)
    figures = (Lines("optim.lr", series="latent.size", log_x=True), Curves("latent.size"))
    return replace(sweep, studies=tuple(replace(study, figures=figures) for study in sweep.studies))


def ended(member: Member) -> Row:
    """A made-up result."""
    numbers = np.random.default_rng(int(member.key, 16)).random((len(METRICS), EPOCHS))
    history = dict(zip(METRICS, numbers.tolist(), strict=True))
    return Row(
        key=member.key,
        status="finished",
        epochs=EPOCHS,
        wall_s=1.0,
        ended=now(),
        config=member.config.model_dump(mode="json"),
        metrics={name: each[-1] for name, each in history.items()},
        history=history,
    )


def made(folder: str, members: int) -> int:
    """Makes the storage; returns the number of members."""
    plan = Plan(drawn(members))
    storage = Storage(folder, plan.sweep.name)
    storage.prepare()
    ledger, every = Ledger(storage), plan.members["grid"]
    for first in range(0, len(every), FILE):
        ledger.append([ended(member) for member in every[first : first + FILE]])
    return len(every)


def reported(folder: str, members: int) -> Report:
    """Writes the report."""
    wall, processor = time.perf_counter(), time.process_time()
    plan = Plan(drawn(members))
    storage = Storage(folder, plan.sweep.name)
    ledger = UnchangedLedger(storage)
    write_outputs(storage, unfold(plan, ledger), ledger.read(), {}, Path(folder))
    return {
        "wall_s": time.perf_counter() - wall,
        "processor_s": time.process_time() - processor,
        "peak_mib": peak_mib(),
        "page_mib": (storage.local_path / REPORT).stat().st_size / 2**20,
    }


def alone(function: Callable[..., Any], *arguments: Any) -> Any:
    """The result of a function in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(function, *arguments).result()


def main() -> None:
    """Measures, prints and writes."""
    arguments = parser(__doc__, trains=False)
    arguments.add_argument("--members", type=int, nargs="+", default=[10_000], metavar="N")
    args = arguments.parse_args()
    _, report = begin(args)
    print(f"{'members':>8} {'wall s':>8} {'processor s':>12} {'MiB':>6} {'page MiB':>9}")
    for members in args.members:
        with tempfile.TemporaryDirectory() as folder:
            row = {"members": alone(made, folder, members)} | alone(reported, folder, members)
        print(
            f"{row['members']:8} {row['wall_s']:8.1f} {row['processor_s']:12.1f} {row['peak_mib']:6.0f} "
            f"{row['page_mib']:9.2f}",
            flush=True,
        )
        report["rows"].append(row)
    write(args.json, report)


if __name__ == "__main__":
    main()
