"""Two sweeps at once in one storage, with one MLflow; and clocks that are set while a sweep runs."""

from collections import Counter

import pandas as pd
import pytest
from commands import INSTRUMENTED, Command
from mlflow import MlflowClient
from outcome import check, database, undisturbed

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def test_two_sweeps_at_once_in_one_storage_and_one_mlflow_are_both_complete(tmp_path):
    storage = tmp_path / "runs"
    first = Command("--storage", storage, "--set", "epochs=3", cwd=tmp_path)
    second = Command("--storage", storage, "--scale", "smoke", cwd=tmp_path)
    for command in (first, second):
        code, output = command.end()
        assert code == 0, output
        assert "Traceback" not in output
        assert "behind" not in output
    client = MlflowClient(database(storage))
    check(storage, undisturbed(3))
    (experiment,) = client.search_experiments(filter_string="name = 'quickstart-smoke'")
    runs = client.search_runs([experiment.experiment_id], max_results=5000)
    assert {run.info.status for run in runs} == {"FINISHED"}
    table = pd.read_parquet(storage / "quickstart-smoke" / "results.parquet")
    assert set(table["status"]) == {"finished"}
    assert Counter(run.data.tags["key"] for run in runs if run.data.tags["kind"] == "member") == Counter(table["key"])


def test_a_clock_that_is_set_by_hours_again_and_again_changes_no_result(tmp_path, monkeypatch):
    storage = tmp_path / "runs"
    (tmp_path / "epochs").touch()
    monkeypatch.setenv("EPOCHS", str(tmp_path / "epochs"))
    monkeypatch.setenv("CHECKPOINT_EVERY_S", "1")
    monkeypatch.setenv("CLOCK_JUMPS_S", str(5 * 3600))
    code, output = Command("--storage", storage, "--set", "epochs=20", cwd=tmp_path, program=INSTRUMENTED).end()
    assert code == 0, output
    assert "Traceback" not in output
    check(storage, undisturbed(20))
