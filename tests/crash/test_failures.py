"""Real runs without MLflow, and with data that disappear."""

import platform
import sqlite3
import time

import numpy as np
import pytest
from commands import Command, ledger
from outcome import check, results, undisturbed
from sklearn.datasets import load_digits

from sweeps.on_ray.losses import LOSSES

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def test_a_server_that_does_not_answer_is_told_once_and_the_next_run_completes_mlflow(tmp_path):
    storage = tmp_path / "runs"
    arguments = ("--storage", storage, "--set", "epochs=3")
    began = time.monotonic()
    code, output = Command(*arguments, "--tracking-uri", "http://127.0.0.1:9", cwd=tmp_path).end()
    assert code == 0, output
    assert time.monotonic() - began < 90
    assert output.count("MLflow is incomplete") == 1
    assert "Traceback" not in output
    code, output = Command(*arguments, cwd=tmp_path).end()
    assert code == 0, output
    assert "0 trained now" in output
    assert "behind" not in output
    check(storage, undisturbed(3))


def test_a_database_that_is_locked_for_a_while_lacks_nothing_in_the_end(tmp_path):
    storage = tmp_path / "runs"
    command = Command("--storage", storage, "--set", "epochs=60", cwd=tmp_path).until(lambda: ledger(storage))
    with sqlite3.connect(storage / "mlflow.db", timeout=30, isolation_level=None) as other:
        other.execute("begin exclusive")
        time.sleep(8)
        other.execute("rollback")
    code, output = command.end()
    assert code == 0, output
    if "MLflow is incomplete" in output:  # the database was locked almost to the end
        code, output = Command("--storage", storage, "--set", "epochs=60", cwd=tmp_path).end()
    assert "behind" not in output
    check(storage, undisturbed(60))


def test_a_database_that_is_deleted_is_made_anew_by_the_next_run(tmp_path):
    storage = tmp_path / "runs"
    arguments = ("--storage", storage, "--set", "epochs=20")
    command = Command(*arguments, cwd=tmp_path).until(lambda: ledger(storage))
    for path in storage.glob("mlflow.db*"):
        path.unlink()
    code, output = command.end()
    assert code == 0, output
    assert "Traceback" not in output
    code, output = Command(*arguments, cwd=tmp_path).end()
    assert code == 0, output
    check(storage, undisturbed(20))


def test_data_that_disappear_after_planning_stop_the_run_and_the_same_command_goes_on(tmp_path):
    storage, file = tmp_path / "runs", tmp_path / "data" / "own.npz"
    file.parent.mkdir()
    images = load_digits().images.astype(np.uint8)
    np.savez(file, train_images=images)
    arguments = ("--storage", storage, "--set", "epochs=2", "--set", "data.name=npz:own.npz")
    command = Command(*arguments, cwd=tmp_path).until(lambda: (storage / "quickstart" / "plan.json").exists())
    file.unlink()
    code, output = command.end()
    assert code == 2, output
    assert f"images cannot be read on {platform.node()}: " in output
    assert "own.npz" in output
    assert "Traceback" not in output
    assert ledger(storage) == []
    np.savez(file, train_images=images)
    code, output = Command(*arguments, cwd=tmp_path).end()
    assert code == 0, output
    assert set(results(storage)["status"]) == {"finished"}


def test_a_sweep_in_which_everything_fails_stops_and_says_so(tmp_path):
    storage = tmp_path / "runs"
    arguments = (
        "--storage",
        storage,
        "--set",
        "objective.kl_weight=1e38",
        "--max-failures",
        "3",
        "--max-concurrent",
        "1",
    )
    code, output = Command(*arguments, cwd=tmp_path).end()
    assert code == 3, output
    assert "Stopped after 4 failures (--max-failures); the other members were not trained." in output
    assert len(results(storage).query("status == 'failed'")) == 4


def test_what_ray_kills_for_memory_is_halved_and_fails_with_that_reason(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_memory_usage_threshold", "0.01")  # every process is one too many
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "100")
    storage, two = tmp_path / "runs", ("--seeds", "2", "--set", "optim.lr=0.01", "--set", "epochs=400")
    code, output = Command(
        *("--storage", storage, *two, "--max-concurrent", "1", "--max-failures", "1"), cwd=tmp_path
    ).end()
    assert code == 3, output
    assert "Traceback" not in output
    assert output.count("A worker of 2 members was lost") == LOSSES
    assert output.count("A worker of 1 members was lost") == LOSSES
    assert results(storage).query("status == 'failed'")["reason"].tolist() == ["out_of_memory"]
