"""Fixtures of the tests of sweeps."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from scripted import result

from sweeps.cli import run_app, single
from sweeps.planning.plan import Cohort
from sweeps.records.ledger import Ledger
from sweeps.records.storage import Storage


@pytest.fixture(scope="session")
def finished_quickstart(tmp_path_factory) -> Path:
    """A storage in which quickstart was run to its end; beside it, what was printed, as `.txt`. Copy it to write to it.

    The first of the processes that run the tests makes it, the others wait.
    """
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    storage = folder / "finished" / "runs"
    printed = storage.with_suffix(".txt")
    with FileLock(folder / "finished.lock"):
        if not printed.exists():
            command = [sys.executable, "-m", "sweeps.run", "quickstart", "--storage", str(storage)]
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=550, check=False)
            assert done.returncode == 0, done.stdout + done.stderr
            printed.write_text(done.stdout + done.stderr)
    return storage


@pytest.fixture
def storage(tmp_path) -> Storage:
    place = Storage(str(tmp_path / "runs"), "small")
    place.prepare()
    return place


@pytest.fixture
def ledger(storage) -> Ledger:
    return Ledger(storage)


@pytest.fixture
def drain() -> Callable[..., list[Cohort]]:
    """Ends every cohort that a driver hands out with `outcome(driver, cohort)`; returns the cohorts."""

    def run(driver: Any, outcome: Callable[[Any, Cohort], None] | None = None) -> list[Cohort]:
        cohorts = []
        driver.begin(slots=2, pack=None)
        while (cohort := driver.next()) is not None:
            cohorts.append(cohort)
            if outcome is None:
                driver.ended(cohort, [result(member) for member in cohort.members])
            else:
                outcome(driver, cohort)
        assert driver.exhausted()
        return cohorts

    return run


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
    """Runs a command in an empty folder; returns exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def call(function, *arguments: str):
        monkeypatch.setattr(sys, "argv", ["command", *arguments])
        with pytest.raises(SystemExit) as stop:
            run_app(single(function), "command")
        return stop.value.code, *capsys.readouterr()

    return call
