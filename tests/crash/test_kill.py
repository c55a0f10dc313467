"""kill -9, Ctrl-C and SIGTERM at random moments; then the same command again."""

import random
import signal
import time
from pathlib import Path

import psutil
import pytest
from commands import Command
from outcome import check, mlflow_runs, results

pytestmark = pytest.mark.timeout(600)
MEMBERS = 20


def ledger(storage: Path) -> list[Path]:
    return list((storage / "quickstart" / "ledger").glob("*.parquet"))


def begun(storage: Path) -> list[Path]:
    return list((storage / "quickstart" / "cohorts").glob("*.json"))


def trials(command: Command) -> list[psutil.Process]:
    """The processes that train."""
    found = psutil.Process(command.pid).children(recursive=True)
    # A process's name is cut to 15 characters.
    return [p for p in found if p.is_running() and p.name().startswith("ray::ImplicitF")]


def gone(processes: list[psutil.Process], timeout_s: float) -> bool:
    """Whether the processes end by themselves in that time. A zombie has ended."""
    deadline = time.monotonic() + timeout_s
    while any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in processes):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def test_after_kill_9_in_mid_training_the_same_command_gives_what_an_undisturbed_run_gives(tmp_path):
    storage = tmp_path / "runs"
    arguments = ("--storage", storage, "--set", "epochs=20")
    command = Command(*arguments, cwd=tmp_path).until(lambda: ledger(storage) and begun(storage))
    time.sleep(random.Random(0).uniform(0, 1))
    training = trials(command)
    assert training
    command.kill()
    assert begun(storage)
    assert gone(training, 30)
    code, output = Command(*arguments, cwd=tmp_path).end()
    assert code == 0, output
    assert "Traceback" not in output
    check(storage, MEMBERS)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_after_kill_9_at_any_moments_nothing_is_lost_doubled_or_left_running(tmp_path, seed):
    storage = tmp_path / "runs"
    arguments = ("--only", "*", "--storage", storage, "--set", "epochs=30")
    moments = random.Random(seed)
    started = []
    for _ in range(3):
        command = Command(*arguments, cwd=tmp_path)
        deadline = time.monotonic() + moments.uniform(1, 25)
        while time.monotonic() < deadline and psutil.Process(command.pid).status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.1)
        started += psutil.Process(command.pid).children(recursive=True)
        command.kill()
    code, output = Command(*arguments, cwd=tmp_path).end()
    assert code == 0, output
    check(storage, 64)
    assert gone(started, 120)


@pytest.mark.slow
def test_a_trial_whose_process_is_killed_goes_on_and_the_sweep_finishes(tmp_path):
    storage = tmp_path / "runs"
    command = Command("--storage", storage, "--set", "epochs=150", cwd=tmp_path)
    killed = []
    for _ in range(2):
        command.until(lambda: [p for p in trials(command) if p not in killed and p.cpu_times().user > 4])
        victim = next(p for p in trials(command) if p not in killed and p.cpu_times().user > 4)
        victim.kill()
        killed.append(victim)
    code, output = command.end()
    assert code == 0, output
    check(storage, MEMBERS)


@pytest.mark.slow
@pytest.mark.parametrize(
    "numbers", [(signal.SIGTERM,), (signal.SIGINT, signal.SIGINT)], ids=["SIGTERM", "Ctrl-C twice"]
)
def test_other_ends_in_mid_training(tmp_path, numbers):
    storage = tmp_path / "runs"
    arguments = ("--storage", storage, "--set", "epochs=20")
    command = Command(*arguments, cwd=tmp_path).until(lambda: ledger(storage) and begun(storage))
    started = psutil.Process(command.pid).children(recursive=True)
    for number in numbers:
        command.signal(number, missing_ok=True)
        time.sleep(0.3)
    code, output = command.end()
    assert code in (130, -signal.SIGINT), output  # which a shell shows as 130
    assert gone(started, 90)
    if len(numbers) == 1:
        assert "Traceback" not in output
        assert "RUNNING" not in {run.info.status for run in mlflow_runs(storage)}
        assert 0 < (results(storage)["status"] == "finished").sum() < MEMBERS
    code, output = Command(*arguments, cwd=tmp_path).end()
    assert code == 0, output
    check(storage, MEMBERS)
