"""Stops a driver while another one, on another host by its name, takes over; then lets it go on."""

import contextlib
import os
import signal
import sqlite3
import time
from pathlib import Path

import pytest
from commands import INSTRUMENTED, Command, keys, ledger
from outcome import check, undisturbed

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
STALE_AFTER_S = 3.0
EPOCHS = 30


def files(storage: Path) -> dict[str, int]:
    """All files of a sweep, and when each was written, in nanoseconds."""
    return {str(path): path.stat().st_mtime_ns for path in (storage / "quickstart").rglob("*") if path.is_file()}


def stop(command: Command, database: Path) -> None:
    """Stops a driver at a moment when it does not keep others from MLflow's database."""
    while True:
        os.kill(command.pid, signal.SIGSTOP)
        try:
            with contextlib.closing(sqlite3.connect(database, timeout=0, isolation_level=None)) as other:
                other.execute("begin immediate")
                other.execute("rollback")
            return
        except sqlite3.OperationalError:
            os.kill(command.pid, signal.SIGCONT)
            time.sleep(0.05)


def test_a_driver_that_lost_its_lock_while_it_was_stopped_writes_nothing_more(tmp_path, monkeypatch):
    storage = tmp_path / "runs"
    (tmp_path / "epochs").touch()
    monkeypatch.setenv("EPOCHS", str(tmp_path / "epochs"))
    monkeypatch.setenv("CHECKPOINT_EVERY_S", "0")  # the workers of the first driver write after each epoch
    monkeypatch.setenv("STALE_AFTER_S", str(STALE_AFTER_S))

    def start(host: str) -> Command:
        monkeypatch.setenv("HOST", host)
        arguments = ("--storage", storage, "--set", f"epochs={EPOCHS}")
        return Command(*arguments, cwd=tmp_path, program=INSTRUMENTED)

    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as in a job in the background
    try:
        first = start("first")
    finally:
        signal.signal(signal.SIGINT, before)
    first.until(lambda: ledger(storage))
    stop(first, storage / "mlflow.db")
    assert 0 < len(keys(ledger(storage))) < len(undisturbed(EPOCHS))
    time.sleep(STALE_AFTER_S + 1)

    code, output = start("second").end()
    assert code == 0, output
    assert "Taking over from a run that has ended without releasing its lock (host first" in output
    check(storage, undisturbed(EPOCHS))
    left = files(storage)

    os.kill(first.pid, signal.SIGCONT)
    code, output = first.end()
    assert code == 2, output
    assert "writes nothing more" in output
    assert "Traceback" not in output
    assert files(storage) == left
    check(storage, undisturbed(EPOCHS))
