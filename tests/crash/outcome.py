"""Checks the final state of a quickstart sweep after any faults."""

from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from commands import keys, ledger
from mlflow import MlflowClient
from mlflow.entities import Run

from search_spaces import get_sweep
from sweeps.planning.plan import Overrides, Plan
from trainables.training import train

Metrics = dict[str, dict[str, float]]
"""Final metrics by member's key and by name."""


@cache
def undisturbed(epochs: int) -> Metrics:
    """The metrics of the members of `Command`, trained in this process."""
    plan = Plan(get_sweep("quickstart"), Overrides(only="estimators", values=(("epochs", epochs),)))
    return {result.key: result.metrics for result in train([m.config for m in plan.members["estimators"]])}


def results(storage: Path) -> pd.DataFrame:
    return pd.read_parquet(storage / "quickstart" / "results.parquet")


def recorded(storage: Path) -> Metrics:
    """The final metrics that a run has written."""
    table = results(storage).set_index("key")
    table = table[[name for name in table.columns if name.startswith("metrics.")]]
    table.columns = [name.removeprefix("metrics.") for name in table.columns]
    return {str(key): row.dropna().to_dict() for key, row in table.iterrows()}


def database(storage: Path) -> str:
    """The URI of MLflow's default database in a storage."""
    return f"sqlite:///{storage / 'mlflow.db'}"


def mlflow_runs(tracking_uri: str) -> list[Run]:
    client = MlflowClient(tracking_uri)
    (experiment,) = client.search_experiments(filter_string="name = 'quickstart'")
    return list(client.search_runs([experiment.experiment_id], max_results=5000))


def check(storage: Path, expected: Metrics, tracking_uri: str | None = None) -> None:
    """Asserts that each member finished once with the metrics of an undisturbed training, and that MLflow agrees."""
    folder, table = storage / "quickstart", results(storage).set_index("key")
    assert sorted(table.index) == sorted(expected)
    assert set(table["status"]) == {"finished"}
    assert keys(ledger(storage)) == sorted(expected)
    assert list((folder / "cohorts").iterdir()) == []
    assert list(folder.rglob("*.partial")) == []
    found = recorded(storage)
    for key, metrics in expected.items():
        assert found[key].keys() == metrics.keys()
        for name, value in metrics.items():
            np.testing.assert_allclose(found[key][name], value, rtol=1e-4, err_msg=f"{name} of {key}")

    epochs = table["config.epochs"].to_dict()
    history = pd.read_parquet(folder / "history.parquet").groupby("key")["epoch"].agg(list).to_dict()
    assert history == {key: list(range(1, last + 1)) for key, last in epochs.items()}

    tracking_uri = tracking_uri or database(storage)
    runs = mlflow_runs(tracking_uri)
    own = [run for run in runs if run.data.tags["kind"] == "member"]
    assert Counter(run.data.tags["key"] for run in own) == Counter(table.index)
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert {run.info.run_id for run in own} == set(table["mlflow_run_id"])
    client = MlflowClient(tracking_uri)
    for run in own:
        key = run.data.tags["key"]
        assert run.data.params["optim.lr"] == str(table.loc[key, "config.optim.lr"])
        for name in ("elbo", "kl", "bits_per_dim"):
            steps = [metric.step for metric in client.get_metric_history(run.info.run_id, name)]  # in order of time
            assert sorted(steps) == history[key], (name, key, steps)
