"""The tables of results that are written for users: results.parquet and history.parquet."""

import pyarrow as pa

from sweeps.records import parquet
from sweeps.records.storage import Storage

RESULTS, HISTORY = "results.parquet", "history.parquet"


def known_run_ids(storage: Storage) -> dict[tuple[str, str], str]:
    """MLflow's run ids by (study, key), from the last results.parquet; empty if it cannot be read."""
    columns = ("study", "key", "mlflow_run_id")
    try:
        rows = parquet.decoded(storage.read(RESULTS), columns).select(columns).to_pylist()
    except (OSError, pa.ArrowException, ValueError, KeyError):
        return {}
    return {(row["study"], row["key"]): row["mlflow_run_id"] for row in rows if row["mlflow_run_id"] is not None}
