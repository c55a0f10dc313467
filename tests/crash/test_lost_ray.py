"""Kills Ray's own processes, while Ray starts and in mid-training; interrupts a run while Ray starts."""

import os
import signal
import time
from pathlib import Path

import pytest
from commands import Command, below, gone, ledger
from outcome import check, undisturbed

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
EPOCHS = 100
ENDS_S = 60.0


def start(storage: Path) -> Command:
    return Command("--storage", storage, "--set", f"epochs={EPOCHS}", cwd=storage.parent)


@pytest.mark.parametrize("process", ["raylet", "gcs_server"])
@pytest.mark.parametrize("when", ["while Ray starts", "in mid-training"])
def test_a_run_whose_ray_is_killed_ends_with_one_line_and_the_same_command_goes_on(tmp_path, process, when):
    storage = tmp_path / "runs"
    command = start(storage)
    if when == "in mid-training":
        command.until(lambda: ledger(storage) and command.trials(cpu_s=2))
    (victim,) = command.wait_for(lambda: below(command.pid, process))
    started = command.descendants()
    victim.kill()
    at = time.monotonic()
    code, output = command.end()
    assert code == 2, output
    assert time.monotonic() - at < ENDS_S
    assert gone(started, 30)
    last = output.splitlines()[-1]
    unnoticed = "Ray could not be started on this machine" in last  # it had ended before the run had seen it
    assert f"Ray's {process} has ended" in last or (when == "while Ray starts" and unnoticed)
    assert "the same command goes on: python -m sweeps.run quickstart --only estimators" in last
    assert "Traceback" not in output
    assert "raylet)" not in output
    code, output = start(storage).end()
    assert code == 0, output
    check(storage, undisturbed(EPOCHS))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
@pytest.mark.parametrize("process", ["gcs_server", "raylet", "ray::IDLE"])
def test_an_interruption_while_ray_starts_is_told_with_the_command_that_goes_on(tmp_path, number, process):
    storage = tmp_path / "runs"
    command = start(storage)
    command.wait_for(lambda: below(command.pid, process))
    started = command.descendants()
    if number == signal.SIGINT:
        command.signal(number)  # a terminal sends Ctrl-C to all processes
    else:
        os.kill(command.pid, number)
    code, output = command.end()
    assert code == 130, output
    assert gone(started, 60)
    assert "Traceback" not in output
    assert "To go on: python -m sweeps.run quickstart --only estimators" in output.splitlines()[-1]
    assert not (storage / "quickstart" / "lock.json").exists()
