"""Kills Ray Train workers, trials and a whole node of a cluster with SIGKILL."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import INSTRUMENTED, Command, below, gone, keys, ledger
from outcome import check, recorded, results, undisturbed

from sweeps.on_ray.losses import LOSSES

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
EPOCHS = 40


class Nodes:
    """The cluster of `nodes.py`."""

    def __init__(self):
        words = [sys.executable, str(Path(__file__).with_name("nodes.py"))]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.address = self._hear()

    def _hear(self) -> str:
        assert self.process.stdout is not None
        # Ray may print lines too.
        return next(line.strip() for line in self.process.stdout if re.fullmatch(r"[\d.:]+|killed", line.strip()))

    def _say(self, line: str) -> str:
        assert self.process.stdin is not None
        print(line, file=self.process.stdin, flush=True)
        return self._hear()

    def add(self, cpus: int) -> int:
        """Adds a node; returns the process id of its raylet."""
        return int(self._say(str(cpus)))

    def kill(self) -> None:
        self._say("kill")


@pytest.fixture
def cluster(monkeypatch) -> Iterator[Nodes]:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", os.urandom(32).hex())
    nodes = Nodes()
    yield nodes
    nodes.process.communicate(timeout=60)


class Epochs:
    """Tells whether a run has trained since the last call; the run saves no checkpoints.

    Tests wait for an epoch before they kill: Ray itself restarts a process that is killed while it starts.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch):
        self._notes, self._seen = folder / "epochs", 0
        self._notes.touch()
        monkeypatch.setenv("EPOCHS", str(self._notes))
        monkeypatch.setenv("CHECKPOINT_EVERY_S", "3600")

    def __call__(self) -> bool:
        before, self._seen = self._seen, self._notes.stat().st_size
        return self._seen > before


def test_nodes_that_are_lost_one_after_the_other_cost_no_member(cluster, tmp_path, monkeypatch):
    storage, trained = tmp_path / "runs", Epochs(tmp_path, monkeypatch)
    cluster.add(1)
    arguments = ("--storage", storage, "--set", f"epochs={EPOCHS}", "--address", cluster.address, "--max-failures", "1")
    command = Command(*arguments, cwd=tmp_path, program=INSTRUMENTED)
    for _ in range(LOSSES + 1):  # one more than are forgiven
        command.until(trained)
        cluster.kill()
        assert keys(ledger(storage)) == []
        trained()
        cluster.add(1)
    code, output = command.end()
    assert code == 0, output
    # Ray restarts a process that dies while it starts, and reports no loss.
    assert LOSSES <= output.count("they continue from their last checkpoint") <= LOSSES + 1
    assert "Traceback" not in output
    check(storage, undisturbed(EPOCHS))


def test_a_node_with_a_group_of_workers_that_is_lost_costs_no_member(cluster, tmp_path):
    storage, raylet = tmp_path / "runs", cluster.add(2)
    arguments = ("--storage", storage, "--set", f"epochs={EPOCHS}", "--address", cluster.address, "--workers", "2")
    command = Command(*arguments, cwd=tmp_path).until(lambda: below(raylet, "ray::RayTrainWorker", cpu_s=3))
    cluster.kill()
    cluster.add(2)
    code, output = command.end()
    assert code == 0, output
    assert "they continue from their last checkpoint" in output
    assert "Traceback" not in output
    check(storage, undisturbed(EPOCHS))


def test_a_train_worker_that_is_killed_costs_no_member(tmp_path):
    storage = tmp_path / "runs"
    command = Command("--storage", storage, "--set", f"epochs={EPOCHS}", "--workers", "2", cwd=tmp_path)
    for _ in range(2):
        group = command.wait_for(lambda: below(command.pid, "ray::RayTrainWorker", cpu_s=3))
        group[0].kill()
        assert gone(group, 60)
    code, output = command.end()
    assert code == 0, output
    assert output.count("they continue from their last checkpoint") == 2
    assert "Traceback" not in output
    check(storage, undisturbed(EPOCHS))


def test_a_worker_that_shares_the_batches_of_a_member_and_is_killed_costs_no_member(tmp_path):
    storage = tmp_path / "runs"
    arguments = ("--seeds", "1", "--set", "optim.lr=0.01", "--set", f"epochs={EPOCHS}", "--workers", "2")
    command = Command("--storage", storage, *arguments, cwd=tmp_path)
    group = command.wait_for(lambda: below(command.pid, "ray::RayTrainWorker", cpu_s=4))
    group[0].kill()
    assert gone(group, 60)
    code, output = command.end()
    assert code == 0, output
    assert output.count("A worker of 1 members was lost") == 1
    assert "5 of 5 members done, 0 failed, 5 trained now" in output
    assert "Traceback" not in output
    expected = undisturbed(EPOCHS)
    for key, metrics in recorded(storage).items():
        # Many epochs summed their gradients in another order.
        assert metrics["bits_per_dim"] == pytest.approx(expected[key]["bits_per_dim"], abs=0.02)


def test_a_cohort_whose_process_is_always_killed_fails_as_lost_and_the_others_finish(tmp_path, monkeypatch):
    storage, trained = tmp_path / "runs", Epochs(tmp_path, monkeypatch)
    arguments = ("--storage", storage, "--set", f"epochs={EPOCHS}", "--max-concurrent", "1")
    command = Command(*arguments, cwd=tmp_path, program=INSTRUMENTED)
    for _ in range(LOSSES + 1):
        command.until(trained)
        victims = command.trials()
        for victim in victims:
            victim.kill()
        assert gone(victims, 30)
        trained()
    code, output = command.end()
    assert code == 3, output
    assert "Some members failed (lost)" in output
    table = results(storage)
    assert (table["reason"] == "lost").sum() == 4
    assert (table["status"] == "finished").sum() == 16
    code, output = Command(*arguments, "--retry-failed", cwd=tmp_path).end()
    assert code == 0, output
    found, expected = recorded(storage), undisturbed(EPOCHS)
    assert found.keys() == expected.keys()
    lost = table.loc[table["reason"] == "lost", "key"]
    for key in lost:
        assert found[key]["elbo"] == pytest.approx(expected[key]["elbo"], rel=1e-4)
