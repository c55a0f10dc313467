"""Fixtures of the tests of sweeps."""

import sys
from collections.abc import Callable
from typing import Any

import pytest
from scripted import result

from sweeps.cli import run_app, single
from sweeps.planning.plan import Cohort
from sweeps.records.ledger import Ledger
from sweeps.records.storage import Storage


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
