"""What a sweep of quickstart has to look like in the end, whatever happened on the way."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
from commands import keys
from mlflow import MlflowClient
from mlflow.entities import Run

from trainables.config import TrainingConfig
from trainables.training import train

_expected: dict[str, dict[str, float]] = {}
"""Metrics of undisturbed trainings, by key."""


def expected(configs: list[TrainingConfig]) -> dict[str, dict[str, float]]:
    new = [config for config in configs if config.key() not in _expected]
    _expected.update({result.key: result.metrics for result in train(new)})
    return _expected


def results(storage: Path) -> pd.DataFrame:
    return pd.read_parquet(storage / "quickstart" / "results.parquet")


def mlflow_runs(storage: Path) -> list[Run]:
    client = MlflowClient(f"sqlite:///{storage / 'mlflow.db'}")
    (experiment,) = client.search_experiments(filter_string="name = 'quickstart'")
    return list(client.search_runs([experiment.experiment_id], max_results=5000))


def check(storage: Path, members: int) -> None:
    """All members finished, once, with the metrics of a training that nothing disturbed, and MLflow agrees."""
    table = results(storage)
    assert len(table) == members
    assert table["key"].is_unique
    assert set(table["status"]) == {"finished"}
    folder = storage / "quickstart"
    rows = [row for file in (folder / "ledger").glob("*.parquet") for row in pd.read_parquet(file).to_dict("records")]
    assert keys(list((folder / "ledger").glob("*.parquet"))) == sorted(table["key"])
    assert list((folder / "cohorts").iterdir()) == []

    recorded = table.set_index("key")
    configs = [TrainingConfig.model_validate(json.loads(row["config"])) for row in rows]
    undisturbed = expected(configs)
    for config in configs:
        names, values = zip(*undisturbed[config.key()].items(), strict=True)
        found = recorded.loc[config.key(), [f"metrics.{name}" for name in names]].to_numpy(dtype=float)
        np.testing.assert_allclose(found, values, rtol=1e-4)

    runs = mlflow_runs(storage)
    own = [run for run in runs if run.data.tags["kind"] == "member"]
    assert Counter(run.data.tags["key"] for run in own) == Counter(table["key"])
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert {run.info.run_id for run in own} == set(table["mlflow_run_id"])
    client = MlflowClient(f"sqlite:///{storage / 'mlflow.db'}")
    for run in own:
        assert run.data.params["optim.lr"] == str(recorded.loc[run.data.tags["key"], "config.optim.lr"])
        for name in ("elbo", "kl", "bits_per_dim"):
            steps = [metric.step for metric in client.get_metric_history(run.info.run_id, name)]
            assert steps == list(range(1, int(run.data.params["epochs"]) + 1))
