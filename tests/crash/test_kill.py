"""Kills runs with SIGKILL, Ctrl-C and SIGTERM at random moments, and runs the same command again."""

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

from trainables.checkpoint import CheckpointFile, read_checkpoint

pytestmark = pytest.mark.timeout(1200)
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

    def __init__(self, storage: Path, *arguments: str, monkeypatch: pytest.MonkeyPatch):
        self.storage = storage
        self._notes = storage.with_name("epochs")
        self._notes.touch()
        monkeypatch.setenv("EPOCHS", str(self._notes))
        monkeypatch.setenv("CHECKPOINT_EVERY_S", "0")
        self._arguments = ("--storage", storage, "--set", f"epochs={EPOCHS}", *arguments)
        self._started: list[psutil.Process] = []
        self.kills = 0

    def start(self) -> Command:
        return Command(*self._arguments, cwd=self.storage.parent, program=INSTRUMENTED)

    def _trained(self) -> dict[str, list[int]]:
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
        before, after_kill = saved(self.storage), self._trained()
        command = self.start()
        if until is None:
            code, output = command.end()
            assert code == 0, output
        else:
            until(command)
            self.kill(command)
            output = ""
        for cohort, epoch in before.items():
            now = self._trained()[cohort][len(after_kill[cohort]) :]
            # A run that is killed again may have trained nothing.
            last = EPOCHS if until is None else max(now, default=epoch)
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_trial_whose_process_is_killed_goes_on_and_the_sweep_finishes(tmp_path):
    storage = tmp_path / "runs"
    command = Command("--storage", storage, "--set", "epochs=150", cwd=tmp_path)
    for _ in range(2):
        victim = command.wait_for(lambda: command.trials(cpu_s=4))[0]
        victim.kill()
        assert gone([victim], 30)
    code, output = command.end()
    assert code == 0, output
    assert output.count("they go on from their last checkpoint") == 2
    assert "Traceback" not in output
    check(storage, undisturbed(150))


@pytest.mark.slow
@pytest.mark.parametrize(
    "numbers", [(signal.SIGTERM,), (signal.SIGINT, signal.SIGINT)], ids=["SIGTERM", "Ctrl-C twice"]
)
def test_other_ends_in_mid_training(tmp_path, numbers):
    storage = tmp_path / "runs"
    arguments = ("--storage", storage, "--set", "epochs=20")
    command = Command(*arguments, cwd=tmp_path).until(lambda: ledger(storage) and begun(storage))
    started = command.descendants()
    for number in numbers:
        command.signal(number, missing_ok=True)
        time.sleep(0.3)
    code, output = command.end()
    assert code in (130, -signal.SIGINT), output  # shells show the signal as 130
    assert gone(started, 90)
    if len(numbers) == 1:
        assert "Traceback" not in output
        assert "RUNNING" not in {run.info.status for run in mlflow_runs(database(storage))}
        assert 0 < (results(storage)["status"] == "finished").sum() < MEMBERS
    code, output = Command(*arguments, cwd=tmp_path).end()
    assert code == 0, output
    check(storage, undisturbed(20))
