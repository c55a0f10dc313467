"""Fixtures of the tests of sweeps."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from mlflow import MlflowClient
from scripted import result

from sweeps.cli import run_app, single
from sweeps.planning.plan import PlannedCohort
from sweeps.records.ledger import Ledger
from sweeps.records.storage import Storage
from sweeps.tracking.uri import of_database


@pytest.fixture(scope="session")
def made_once(tmp_path_factory) -> Callable[[str, Callable[[Path], None]], Path]:
    """Calls `made_once(name, make)`: a folder that `make` fills, once for all processes that run the tests.

    The first process fills it, the others wait. Copy what lies there to write to it.
    """
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own

    def call(name: str, make: Callable[[Path], None]) -> Path:
        folder = shared / name
        complete = folder / "complete"
        with FileLock(shared / f"{name}.lock"):
            if not complete.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                make(folder)
                complete.touch()
        return folder

    return call


@pytest.fixture(scope="session")
def finished_quickstart(made_once) -> Path:
    """A storage in which quickstart was run to its end; beside it, what was printed, in `printed.txt`."""

    def make(folder: Path) -> None:
        command = [sys.executable, "-m", "sweeps.run", "quickstart", "--storage", str(folder / "runs")]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=1100, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        (folder / "printed.txt").write_text(done.stdout + done.stderr)

    return made_once("finished_quickstart", make) / "runs"


@pytest.fixture(scope="session")
def empty_database(made_once) -> Callable[[Path], str]:
    """Puts a copy of an empty MLflow database at a path; returns its URI. To make the tables anew takes seconds."""

    def make(folder: Path) -> None:
        MlflowClient(of_database(folder / "mlflow.db")).search_experiments()

    original = made_once("empty_database", make) / "mlflow.db"

    def place(path: Path) -> str:
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(original, path)
        return of_database(path)

    return place


@pytest.fixture
def storage(tmp_path) -> Storage:
    place = Storage(str(tmp_path / "runs"), "small")
    place.prepare()
    return place


@pytest.fixture
def ledger(storage) -> Ledger:
    return Ledger(storage)


@pytest.fixture
def drain() -> Callable[..., list[PlannedCohort]]:
    """Ends every cohort that a driver hands out with `outcome(driver, cohort)`; returns the cohorts."""

    def run(driver: Any, outcome: Callable[[Any, PlannedCohort], None] | None = None) -> list[PlannedCohort]:
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
