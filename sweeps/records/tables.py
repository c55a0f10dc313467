"""The tables of results that are written for users: results.parquet and history.parquet."""

from sweeps.errors import UserError
from sweeps.records import parquet
from sweeps.records.storage import Storage

RESULTS, HISTORY = "results.parquet", "history.parquet"


def known_run_ids(storage: Storage) -> dict[tuple[str, str], str]:
    """MLflow's run ids by (study, key), from the last results.parquet; empty if it cannot be read."""
    columns = ("study", "key", "mlflow_run_id")
    try:
        rows = parquet.decoded(storage.read(RESULTS), columns).select(columns).to_pylist()
    except UserError:
        raise
    except Exception:  # the file is missing or damaged; pyarrow can raise any exception for damaged bytes
        return {}
    return {(row["study"], row["key"]): run for row in rows if isinstance(run := row["mlflow_run_id"], str)}
