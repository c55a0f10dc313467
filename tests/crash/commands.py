"""Runs quickstart in real processes."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import psutil
import pyarrow.parquet as pq

T = TypeVar("T")
RUN = ("-m", "sweeps.run")
INSTRUMENTED = (str(Path(__file__).with_name("instrumented.py")),)


class Command:
    """`python -m sweeps.run quickstart --only estimators` (20 members in five cohorts) with further arguments."""

    def __init__(self, *arguments: str | Path, cwd: Path, program: tuple[str, ...] = RUN):
        words = [sys.executable, *program, "quickstart", "--only", "estimators", *map(str, arguments)]
        self._process = subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True, cwd=cwd
        )
        self.pid = self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def wait_for(self, condition: Callable[[], T], timeout_s: float = 300) -> T:
        """Waits until a condition is true while the command runs; returns its value."""
        deadline = time.monotonic() + timeout_s
        while not (found := condition()):
            assert self.running, self.end()
            assert time.monotonic() < deadline, self.kill()
            time.sleep(0.05)
        return found

    def until(self, condition: Callable[[], object]) -> "Command":
        """Like `wait_for`, but returns the command."""
        self.wait_for(condition)
        return self

    def end(self, timeout_s: float = 600) -> tuple[int, str]:
        """Waits for the end; returns the exit code and the output."""
        try:
            output, _ = self._process.communicate(timeout=timeout_s)
        finally:
            self.signal(signal.SIGKILL, missing_ok=True)
        return self._process.returncode, output

    def signal(self, number: int, *, missing_ok: bool = False) -> None:
        """Sends a signal to the driver and to the processes in its group."""
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            if not missing_ok:
                raise

    def kill(self) -> str:
        """Sends SIGKILL; returns the output."""
        self.signal(signal.SIGKILL)
        return self.end()[1]

    def descendants(self) -> list[psutil.Process]:
        """All living processes below the driver."""
        return below(self.pid)

    def trials(self, cpu_s: float = 0) -> list[psutil.Process]:
        """The processes of trials with one worker that have used at least `cpu_s` seconds of CPU time."""
        return below(self.pid, "ray::ImplicitFunc", cpu_s)


def below(pid: int, name: str = "", cpu_s: float = 0) -> list[psutil.Process]:
    """The living processes below another one with this name that have used at least `cpu_s` seconds of CPU time."""
    found = []
    with contextlib.suppress(psutil.NoSuchProcess):
        for process in psutil.Process(pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                # The kernel cuts names to 15 characters.
                if process.name().startswith(name[:15]) and process.cpu_times().user >= cpu_s:
                    found.append(process)
    return found


def gone(processes: list[psutil.Process], timeout_s: float) -> bool:
    """Whether the processes end within this time; zombies have ended."""
    deadline = time.monotonic() + timeout_s
    while any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in processes):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def ledger(storage: Path) -> list[Path]:
    """The files of a sweep's ledger."""
    return list((storage / "quickstart" / "ledger").glob("*.parquet"))


def keys(files: list) -> list[str]:
    """The sorted keys of members in ledger files; a member that was trained twice occurs twice."""
    return sorted(key for file in files for key in pq.read_table(file, columns=["key"])["key"].to_pylist())
