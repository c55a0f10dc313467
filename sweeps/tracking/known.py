"""The runs that this program has in an experiment of MLflow already, found by their tags."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from mlflow import MlflowClient

from sweeps.tracking import sqlite
from sweeps.tracking.uri import database

_TAGS = ("kind", "study", "key", "reason", "configuration.key", "n", "mlflow.parentRunId")
_PAGE = 1000


@dataclass(frozen=True)
class Known:
    """A run: its id, MLflow's status, and our tags as far as it has them."""

    run_id: str
    status: str
    tags: Mapping[str, str]


def known_runs(client: MlflowClient, uri: str, experiment: str) -> list[Known]:
    """The runs of an experiment that have any of our tags, without deleted ones; the latest first.

    An SQLite file is read directly, since MLflow's client takes 1 to 2 ms a run.

    Raises:
        MlflowException: MLflow cannot be asked.
        sqlite.DatabaseError: its database cannot be read.
    """
    path = database(uri)
    if path is None:
        return list(_searched(client, experiment))
    return [Known(*run) for run in sqlite.tagged_runs(path, experiment, _TAGS)]


def _searched(client: MlflowClient, experiment: str) -> Iterator[Known]:
    token = None
    while True:
        order = ["attributes.start_time DESC"]
        page = client.search_runs([experiment], "", max_results=_PAGE, order_by=order, page_token=token)
        for run in page:
            tags = {name: run.data.tags[name] for name in _TAGS if name in run.data.tags}
            if tags:
                yield Known(run.info.run_id, run.info.status, tags)
        token = page.token
        if not token:
            return
