"""Kills runs with SIGKILL, Ctrl-C and SIGTERM at random moments, and runs the same command again."""

import os
import random
import signal
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from commands import INSTRUMENTED, Command, gone, keys, ledger
from outcome import Metrics, check, database, mlflow_runs, recorded, results, undisturbed

from sweeps.on_ray.execute import SAVING_S, Places
from trainables.checkpoint import CheckpointFile, read_checkpoint

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
MEMBERS, EPOCHS = 20, 12


def begun(storage: Path) -> list[str]:
    """The keys of the cohorts in training."""
    return [path.stem for path in (storage / "quickstart" / "cohorts").glob("*.json")]


def saved(storage: Path) -> dict[str, int]:
    """The epoch of the checkpoint of each cohort in training."""
    files = {
        key: CheckpointFile(str(storage / "quickstart" / "checkpoints" / key), "members") for key in begun(storage)
    }
    return {key: read_checkpoint(content)[0].epoch for key, file in files.items() if (content := file.read())}


class Noted:
    """Runs of the instrumented command, and the epochs they trained."""

    def __init__(
        self,
        storage: Path,
        *arguments: str,
        monkeypatch: pytest.MonkeyPatch,
        epochs: int = EPOCHS,
        save_every_s: float = 0,
        epoch_s: float = 0,
    ):
        self.storage = storage
        self._notes = storage.with_name("epochs")
        self._notes.touch()
        monkeypatch.setenv("EPOCHS", str(self._notes))
        monkeypatch.setenv("CHECKPOINT_EVERY_S", str(save_every_s))
        monkeypatch.setenv("EPOCH_S", str(epoch_s))
        self._epochs = epochs
        self._arguments = ("--storage", storage, "--set", f"epochs={epochs}", *arguments)
        self._started: list[psutil.Process] = []
        self.kills = 0

    def start(self) -> Command:
        return Command(*self._arguments, cwd=self.storage.parent, program=INSTRUMENTED)

    def trained(self) -> dict[str, list[int]]:
        """The epochs that were trained, in order, by cohort."""
        epochs = defaultdict(list)
        for line in self._notes.read_text().splitlines():
            cohort, epoch = line.split()
            epochs[cohort].append(int(epoch))
        return epochs

    def kill(self, command: Command, *, trials: bool = False) -> None:
        """Kills the driver, and first its trials if wanted; waits until all of them have ended."""
        training = command.trials()
        self._started += command.descendants()
        for process in training if trials else ():
            process.kill()
        self.kills += command.running  # it may have ended before
        command.signal(signal.SIGKILL, missing_ok=True)
        command.end()
        assert gone(training, 60)

    def resume(self, until: Callable[[Command], None] | None = None) -> str:
        """Runs to the end or until it is killed again; asserts that no saved epoch is trained again."""
        before, after_kill = saved(self.storage), self.trained()
        command = self.start()
        if until is None:
            code, output = command.end()
            assert code == 0, output
        else:
            until(command)
            self.kill(command)
            output = ""
        for cohort, epoch in before.items():
            now = self.trained()[cohort][len(after_kill[cohort]) :]
            # A run that is killed again may have trained nothing.
            last = self._epochs if until is None else max(now, default=epoch)
            assert now == list(range(epoch + 1, last + 1))
        return output

    def check(self, expected: Metrics) -> None:
        check(self.storage, expected)
        assert gone(self._started, 120)


def test_after_kill_9_at_the_start_the_same_command_gives_what_an_undisturbed_run_gives(tmp_path, monkeypatch):
    runs = Noted(tmp_path / "runs", monkeypatch=monkeypatch)
    command = runs.start()
    time.sleep(random.Random(0).uniform(0.5, 6))
    assert command.running
    runs.kill(command)
    runs.resume()
    runs.check(undisturbed(EPOCHS))


def test_after_kill_9_in_mid_training_cohorts_go_on_from_their_checkpoints(tmp_path, monkeypatch):
    runs = Noted(tmp_path / "runs", monkeypatch=monkeypatch)
    command = runs.start()

    def half_done() -> list[int]:
        return [epoch for epoch in saved(runs.storage).values() if 0 < epoch < EPOCHS]

    command.until(lambda: ledger(runs.storage) and half_done())
    runs.kill(command, trials=True)
    assert half_done()
    assert "Traceback" not in runs.resume()
    runs.check(undisturbed(EPOCHS))


def test_after_kill_9_near_the_end_the_same_command_only_ends(tmp_path, monkeypatch):
    runs = Noted(tmp_path / "runs", monkeypatch=monkeypatch)
    command = runs.start().until(lambda: len(keys(ledger(runs.storage))) == MEMBERS)
    time.sleep(random.Random(0).uniform(0, 0.5))
    assert command.running
    runs.kill(command)
    assert "0 trained now" in runs.resume()
    runs.check(undisturbed(EPOCHS))


@pytest.fixture(scope="session")
def whole_sweep(tmp_path_factory: pytest.TempPathFactory) -> Metrics:
    """The metrics of the complete quickstart, with its search, without faults."""
    folder = tmp_path_factory.mktemp("undisturbed")
    code, output = Command("--only", "*", "--storage", folder / "runs", "--set", f"epochs={EPOCHS}", cwd=folder).end()
    assert code == 0, output
    return recorded(folder / "runs")


@pytest.mark.parametrize("seed", range(7))
def test_after_kill_9_at_any_three_moments_nothing_is_lost_doubled_or_left_running(
    tmp_path, monkeypatch, whole_sweep, seed
):
    runs = Noted(tmp_path / "runs", "--only", "*", monkeypatch=monkeypatch)
    moments = random.Random(seed)

    def later(command: Command) -> None:
        end = time.monotonic() + moments.uniform(1, 20)
        while time.monotonic() < end and command.running:
            time.sleep(0.05)

    for _ in range(3):
        runs.resume(until=later)
    assert runs.kills
    runs.resume()
    runs.check(whole_sweep)


def test_a_trial_whose_process_is_killed_goes_on_and_the_sweep_finishes(tmp_path, monkeypatch):
    runs = Noted(tmp_path / "runs", "--max-concurrent", "1", monkeypatch=monkeypatch, epochs=40)
    command = runs.start()
    for _ in range(2):
        before = runs.trained()
        command.until(lambda: runs.trained() != before)  # noqa: B023  # Ray itself restarts what is killed at its start
        (victim,) = command.trials(cpu_s=2)
        victim.kill()
        assert gone([victim], 30)
    code, output = command.end()
    assert code == 0, output
    assert output.count("they continue from their last checkpoint") == 2
    assert "Traceback" not in output
    runs.check(undisturbed(40))


@pytest.mark.parametrize("end", ["SIGTERM", "SIGTERM to all processes", "Ctrl-C twice"])
def test_other_ends_in_mid_training(tmp_path, end):
    storage = tmp_path / "runs"
    arguments = ("--storage", storage, "--set", "epochs=20")
    command = Command(*arguments, cwd=tmp_path).until(lambda: ledger(storage) and begun(storage))
    started = command.descendants()
    if end == "SIGTERM":
        os.kill(command.pid, signal.SIGTERM)
    elif end == "SIGTERM to all processes":
        command.signal(signal.SIGTERM)
    else:
        for _ in range(2):
            command.signal(signal.SIGINT, missing_ok=True)
            time.sleep(0.3)
    code, output = command.end()
    assert code in (130, -signal.SIGINT), output  # shells show the signal as 130
    assert gone(started, 90)
    if end == "SIGTERM to all processes":  # which ends Ray too
        assert "python -m sweeps.run quickstart" in output.splitlines()[-1]
    if end != "Ctrl-C twice":
        assert "Traceback" not in output
    if end == "SIGTERM":
        assert "RUNNING" not in {run.info.status for run in mlflow_runs(database(storage))}
        assert 0 < (results(storage)["status"] == "finished").sum() < MEMBERS
    code, output = Command(*arguments, cwd=tmp_path).end()
    assert code == 0, output
    check(storage, undisturbed(20))


INTERRUPTED_EPOCHS = 80


def last(epochs: dict[str, list[int]]) -> int:
    """The last epoch of the cohort that has come furthest."""
    return max((max(own) for own in epochs.values()), default=0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_an_interrupted_run_saves_what_is_in_training_and_trains_no_epoch_twice(tmp_path, monkeypatch, number):
    every_s = Places.checkpoint_every_s
    runs = Noted(tmp_path / "runs", monkeypatch=monkeypatch, epochs=INTERRUPTED_EPOCHS, save_every_s=every_s)
    command = runs.start().until(lambda: last(runs.trained()) >= 3)
    assert saved(runs.storage) == {}
    at, began = time.time(), time.monotonic()
    if number == signal.SIGINT:
        command.signal(number)  # a terminal sends Ctrl-C to all processes
    else:
        os.kill(command.pid, number)
    code, output = command.end()
    assert time.monotonic() - began < 10
    assert code == 130, output
    assert "Traceback" not in output
    assert "Interrupted: saving members in training" in output
    assert "The report has no figures, since the run was interrupted. To draw them: python -m sweeps.report" in output

    trained = runs.trained()
    assert 0 < last(trained) < INTERRUPTED_EPOCHS
    assert saved(runs.storage) == {key: max(trained[key]) for key in begun(runs.storage) if key in trained}
    written = [path.stat().st_mtime for path in (runs.storage / "quickstart" / "checkpoints").rglob("*.safetensors")]
    assert written
    assert max(written) - at < SAVING_S
    runs.resume()
    assert runs.trained() == {key: list(range(1, INTERRUPTED_EPOCHS + 1)) for key in runs.trained()}
    runs.check(undisturbed(INTERRUPTED_EPOCHS))


def test_a_second_ctrl_c_does_not_wait_for_what_is_in_training(tmp_path, monkeypatch):
    runs = Noted(tmp_path / "runs", monkeypatch=monkeypatch, save_every_s=60, epoch_s=600)
    command = runs.start().until(lambda: last(runs.trained()) == 1)
    started = command.descendants()
    command.signal(signal.SIGINT)
    time.sleep(2)
    assert command.running  # it waits for the epoch, which takes minutes
    at = time.monotonic()
    command.signal(signal.SIGINT)
    code, output = command.end()
    assert code == 130, output
    assert "Traceback" not in output
    assert time.monotonic() - at < 5
    assert saved(runs.storage) == {}
    assert gone(started, 90)
