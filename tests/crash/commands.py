"""Real runs of quickstart, in processes of their own."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq


class Command:
    """`python -m sweeps.run quickstart --only estimators` (20 members in five cohorts) with further arguments."""

    def __init__(self, *arguments: str | Path, cwd: Path):
        words = [sys.executable, "-m", "sweeps.run", "quickstart", "--only", "estimators", *map(str, arguments)]
        self._process = subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True, cwd=cwd
        )
        self.pid = self._process.pid

    def until(self, condition: Callable[[], object], timeout_s: float = 120) -> "Command":
        """Waits while the command runs."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert self._process.poll() is None, self.end()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        return self

    def end(self, timeout_s: float = 240) -> tuple[int, str]:
        """Waits for the exit code and what was printed."""
        try:
            output, _ = self._process.communicate(timeout=timeout_s)
        finally:
            self.signal(signal.SIGKILL, missing_ok=True)
        return self._process.returncode, output

    def signal(self, number: int, *, missing_ok: bool = False) -> None:
        """Sends a signal to the driver and all that it started and that is in its session."""
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            if not missing_ok:
                raise

    def kill(self) -> str:
        """kill -9; returns what was printed."""
        self.signal(signal.SIGKILL)
        return self.end()[1]


def keys(files: list) -> list[str]:
    """The members' keys in ledger files, sorted; what is trained twice is there twice."""
    return sorted(key for file in files for key in pq.read_table(file, columns=["key"])["key"].to_pylist())
