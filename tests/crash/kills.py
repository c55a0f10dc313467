"""Kills sweeps at seeded moments, runs them again, and counts everything that is not as in an undisturbed run.

    python -m tests.crash.kills --count 200 --seed 0 --out kills.json

Each round trains quickstart's study `estimators` in a new storage, with a checkpoint every second. It is killed up to
`PER_ROUND` times, every second time in mid-training, and then run to its end. Rounds differ in where MLflow writes and
in the number of Ray Train workers. PostgreSQL is left out where it is not installed. The exit code is 0 if nothing was
lost, doubled, left over or silent for more than a minute.
"""

import argparse
import contextlib
import getpass
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil

os.environ.setdefault("OMP_NUM_THREADS", "1")  # as conftest.py does
sys.path.insert(0, str(Path(__file__).parent))  # as pytest does

from commands import INSTRUMENTED, below, gone, keys, ledger
from mlflow import MlflowClient
from outcome import Metrics, database, mlflow_runs, recorded, results, undisturbed
from test_tracking_servers import PostgreSQL, Server, postgresql_programs

EPOCHS, EPOCH_S, PER_ROUND = 40, 0.4, 6
SILENT_S, ENDS_S, TRAINS_S = 60.0, 120.0, 300.0
"""Seconds: the longest silence; until a run without Ray has ended; until a run trains."""
STARTS_S = 30.0
"""Kills that are not in mid-training come at most so many seconds after the start."""
ENDING = ("driver", "group", "raylet", "gcs_server")
"""What ends the run if it is killed; the others leave it running."""
KEPT = {"ray", "torchinductor_" + getpass.getuser()}
"""What Ray and PyTorch keep in /tmp after every run: the logs of sessions, and compiled code."""
TRIAL, WORKER = "ray::ImplicitFunc", "ray::RayTrainWorker"


@dataclass
class Figures:
    """What the rounds have shown. All but the first four should be zero or empty."""

    kills: Counter[str] = field(default_factory=Counter)
    in_mid_training: int = 0
    rounds: int = 0
    longest_silence_s: float = 0.0
    lost: int = 0
    doubled: int = 0
    running: int = 0
    """Runs in MLflow that are not finished at the end."""
    unequal: int = 0
    """Members whose metrics differ from an undisturbed training's by more than a ten-thousandth."""
    left_in_tmp: list[str] = field(default_factory=list)
    orphans: int = 0
    complaints: list[str] = field(default_factory=list)
    """Tracebacks, unexpected exit codes, and messages without the command that goes on."""

    @property
    def count(self) -> int:
        return sum(self.kills.values())

    @property
    def clean(self) -> bool:
        zero = (self.lost, self.doubled, self.running, self.unequal, self.orphans)
        return not any((*zero, self.left_in_tmp, self.complaints)) and self.longest_silence_s <= SILENT_S

    def plain(self) -> dict[str, object]:
        """The figures as plain data."""
        return {"count": self.count, "clean": self.clean} | vars(self) | {"kills": dict(self.kills)}


class Run:
    """One run of the instrumented command, whose output goes to a file."""

    def __init__(self, folder: Path, number: int, arguments: list[str], environment: dict[str, str]):
        self._output = folder / f"output-{number}.txt"
        words = [sys.executable, *INSTRUMENTED, "quickstart", "--only", "estimators", *arguments]
        with self._output.open("w") as output:
            self._process = subprocess.Popen(
                words, stdout=output, stderr=subprocess.STDOUT, env=environment, cwd=folder, start_new_session=True
            )
        self.pid = self._process.pid
        self.seen: set[psutil.Process] = set()
        """All processes that were below it."""
        self.longest_silence_s = 0.0
        self._spoke, self._size = time.monotonic(), 0

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    @property
    def code(self) -> int | None:
        return self._process.poll()

    @property
    def output(self) -> str:
        return self._output.read_text(errors="replace")

    def look(self) -> None:
        """Notes its processes and whether it has said anything."""
        if not self.running:
            return
        size, now = self._output.stat().st_size, time.monotonic()
        self.longest_silence_s = max(self.longest_silence_s, now - self._spoke)
        if size != self._size:
            self._spoke, self._size = now, size
        self.seen.update(below(self.pid))
        time.sleep(0.2)

    def kill(self, what: str) -> bool:
        """Kills something of it; returns False if there is none."""
        if what in ("driver", "group"):
            (os.kill if what == "driver" else os.killpg)(self.pid, signal.SIGKILL)
            self._process.wait()
            return True
        for process in below(self.pid, what):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
                return True
        return False


class Round:
    """A sweep in a storage of its own.

    Args:
        folder: an empty folder.
        arguments: of the command.
        server: where MLflow writes; None for the database in the storage.
    """

    def __init__(self, folder: Path, arguments: list[str], server: Server | PostgreSQL | None):
        self.storage, self._folder, self.server = folder / "runs", folder, server
        self._notes, self.tmp = folder / "epochs", folder / "tmp"
        self._notes.touch()
        self.tmp.mkdir()
        self.uri = server.uri if server else database(self.storage)
        self._arguments = ["--storage", str(self.storage), "--set", f"epochs={EPOCHS}", *arguments]
        self._arguments += ["--tracking-uri", server.uri] if server else []
        self._environment = os.environ | {
            "EPOCHS": str(self._notes),
            "EPOCH_S": str(EPOCH_S),
            "CHECKPOINT_EVERY_S": "1",
            "TMPDIR": str(self.tmp),
        }
        self.runs: list[Run] = []

    def start(self) -> Run:
        self.runs.append(Run(self._folder, len(self.runs), self._arguments, self._environment))
        return self.runs[-1]

    def trained(self) -> int:
        return self._notes.stat().st_size


def wait(run: Run, moments: random.Random, place: Round, *, training: bool) -> bool:
    """Waits for the moment of a kill; returns whether epochs have been trained in this run by then."""
    before, end = place.trained(), time.monotonic() + TRAINS_S
    if training:
        while run.running and place.trained() == before and time.monotonic() < end:
            run.look()
    end = time.monotonic() + (moments.uniform(0, 4) if training else moments.uniform(0.5, STARTS_S))
    while run.running and time.monotonic() < end:
        run.look()
    return run.running and place.trained() > before


def disturb(place: Round, moments: random.Random, figures: Figures, kills: int, victims: list[str]) -> None:
    """Kills a sweep some times, with a new run after each that ended."""
    run = place.start()
    for _ in range(kills):
        if not run.running:
            run = place.start()
        what, training = moments.choice(victims), figures.count % 2 == 0
        in_training = wait(run, moments, place, training=training)
        if not run.running:
            break
        killed = False
        if what == "server":
            assert place.server is not None
            place.server.stop()
            end = time.monotonic() + moments.uniform(1, 8)
            while time.monotonic() < end:
                run.look()
            with ThreadPoolExecutor(1) as pool:
                back = pool.submit(place.server.start)
                while not back.done():
                    run.look()
                    time.sleep(0.05)
                back.result()
        else:
            while run.running and not (killed := run.kill(what)):  # not started yet, or between two cohorts
                run.look()
            if not killed:
                break
        figures.kills[what] += 1
        figures.in_mid_training += in_training
        print(f"{figures.count}: {what}{' in mid-training' if in_training else ''}", flush=True)
        if what in ENDING:
            ends(run, what, figures)


def ends(run: Run, what: str, figures: Figures) -> None:
    """Waits for the end of a run that has lost its Ray, and checks what it says."""
    end = time.monotonic() + ENDS_S
    while run.running and time.monotonic() < end:
        run.look()
    if run.running:
        figures.complaints.append(f"{what}: still at work after {ENDS_S:.0f} s")
        run.kill("group")
    elif what not in ("driver", "group") and (run.code not in (1, 2) or "the same command goes on: " not in run.output):
        figures.complaints.append(f"{what}: exit code {run.code}: {run.output[-500:]}")


def complete(place: Round, figures: Figures) -> None:
    """Runs the sweep to its end."""
    run = place.runs[-1] if place.runs[-1].running else place.start()
    for _ in range(3):
        end = time.monotonic() + 900
        while run.running and time.monotonic() < end:
            run.look()
        if run.running:
            run.kill("group")
        if run.code == 0 and "MLflow is incomplete" not in run.output:
            return
        if run.code != 0:
            figures.complaints.append(f"exit code {run.code}: {run.output[-500:]}")
        run = place.start()
    figures.complaints.append("three runs without a kill have not completed the sweep")


def judge(place: Round, figures: Figures, expected: Metrics) -> None:
    """Adds what a completed sweep shows to the figures."""
    figures.rounds += 1
    figures.longest_silence_s = max([figures.longest_silence_s, *(run.longest_silence_s for run in place.runs)])
    for run in place.runs:
        if "Traceback" in run.output:
            figures.complaints.append(run.output[run.output.index("Traceback") :][:1000])
    started = [process for run in place.runs for process in run.seen]
    if not gone(started, SILENT_S):
        orphans = [p for p in started if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
        figures.orphans += len(orphans)
        for process in orphans:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
    left = [*place.tmp.iterdir(), *place.storage.rglob("*.partial")]
    figures.left_in_tmp += [path.name for path in left if path.name not in KEPT]
    if not (place.storage / "quickstart" / "results.parquet").exists():
        figures.lost += len(expected)
        return
    rows, table, found = Counter(keys(ledger(place.storage))), results(place.storage), recorded(place.storage)
    finished = set(table.loc[table["status"] == "finished", "key"])
    figures.lost += len(expected.keys() - finished)
    figures.doubled += sum(rows.values()) - len(rows)
    for key, metrics in expected.items():
        own = [found.get(key, {}).get(name, np.nan) for name in metrics]
        figures.unequal += not np.allclose(own, list(metrics.values()), rtol=1e-4)
    runs = mlflow_runs(place.uri)
    own_runs = [run for run in runs if run.data.tags.get("kind") == "member"]
    figures.running += sum(run.info.status != "FINISHED" for run in runs)
    members = Counter(run.data.tags["key"] for run in own_runs)
    figures.lost += len(expected.keys() - members.keys())
    figures.doubled += sum(members.values()) - len(members)
    client = MlflowClient(place.uri)
    for run in own_runs:
        steps = [metric.step for metric in client.get_metric_history(run.info.run_id, "elbo")]
        figures.doubled += len(steps) - len(set(steps))
        figures.lost += len(set(range(1, EPOCHS + 1)) - set(steps))


@contextlib.contextmanager
def server_of(index: int, folder: Path) -> Iterator[Server | PostgreSQL | None]:
    """MLflow's server of a round: in turn none, none, an MLflow server, and PostgreSQL where it is installed."""
    programs = postgresql_programs()
    if index % 4 < 2 or (index % 4 == 3 and programs is None):
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="server-", ignore_cleanup_errors=True) as place:
        server = Server(folder) if programs is None or index % 4 == 2 else PostgreSQL(Path(place), programs)
        server.start()
        try:
            yield server
        finally:
            with contextlib.suppress(ProcessLookupError, subprocess.CalledProcessError):
                server.stop()


def kills(count: int, seed: int) -> Figures:
    """Makes rounds until there were `count` kills."""
    moments, figures, expected = random.Random(seed), Figures(), undisturbed(EPOCHS)
    while figures.count < count:
        with (
            tempfile.TemporaryDirectory(prefix="k", ignore_cleanup_errors=True) as folder,  # short, for Ray's sockets
            server_of(figures.rounds, Path(folder)) as server,
        ):
            grouped = figures.rounds % 4 == 1
            place = Round(Path(folder), ["--workers", "2"] if grouped else [], server)
            victims = [*ENDING, WORKER if grouped else TRIAL, *(["server"] * (server is not None))]
            disturb(place, moments, figures, min(PER_ROUND, count - figures.count), victims)
            complete(place, figures)
            judge(place, figures, expected)
        print(f"round {figures.rounds}: {json.dumps(figures.plain())}", flush=True)
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200, help="how many kills")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and of what is killed")
    parser.add_argument("--out", type=Path, help="a JSON file for the figures")
    arguments = parser.parse_args()
    figures = kills(arguments.count, arguments.seed)
    text = json.dumps({"seed": arguments.seed} | figures.plain(), indent=2)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n")
    return 0 if figures.clean else 1


if __name__ == "__main__":
    sys.exit(main())
