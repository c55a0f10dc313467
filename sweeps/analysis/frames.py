"""Results as tables: results.parquet has a row for each member, history.parquet a row for each member and epoch."""

import io
import math
from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from sweeps.planning.plan import Member
from sweeps.records.ledger import Ledger, Row
from sweeps.records.storage import Storage

RESULTS, HISTORY = "results.parquet", "history.parquet"


@dataclass(frozen=True)
class Frames:
    """A sweep's results.

    results: a row for each member (`results_table`). history: a row for each member and epoch (`history_table`).
    """

    results: pd.DataFrame
    history: pd.DataFrame


def load(name: str, storage: str) -> Frames:
    """Reads the frames of a sweep from its ledger; raises UserError if it has never been run there."""
    from sweeps.planning import saved

    place = Storage(storage, name)
    ledger = Ledger(place)
    members = saved.known_members(saved.last_plan(place), ledger)
    rows = ledger.read()
    return Frames(results_table(members, rows, known_run_ids(place)), history_table(members, rows))


def results_table(
    members: Iterable[Member], rows: Mapping[str, Row], run_ids: Mapping[tuple[str, str], str]
) -> pd.DataFrame:
    """A row for each member: key, study, seed, status, reason, epochs, wall_s, mlflow_run_id, config.* and metrics.*.

    The status of members without a ledger row is "planned". Units of metrics: `trainables.objective.metrics_of`.
    """
    records = []
    for member in members:
        row = rows.get(member.key)
        record = {
            "key": member.key,
            "study": member.study,
            "seed": member.config.seed,
            "status": row.status if row else "planned",
            "reason": row.reason if row else None,
            "epochs": row.epochs if row else 0,
            "wall_s": row.wall_s if row else 0.0,
            "mlflow_run_id": run_ids.get((member.study, member.key)),
        }
        record |= {f"config.{path}": value for path, value in member.config.flat().items()}
        record |= {f"metrics.{name}": value for name, value in (row.metrics.items() if row else ())}
        records.append(record)
    table = pd.DataFrame.from_records(records)
    return pd.DataFrame({name: _of_one_type(column) for name, column in table.items()})


def history_table(members: Iterable[Member], rows: Mapping[str, Row]) -> pd.DataFrame:
    """A row for each member that has ended and each epoch: key, study, seed, epoch (from 1) and metrics.*."""
    ended = [member for member in members if member.key in rows]
    epochs: list[int] = []
    columns: dict[str, array[float]] = {}  # a list of Python floats takes four times the memory
    for member in ended:
        history = dict(rows[member.key].history)
        epochs.append(len(next(iter(history.values()), ())))
        for name in history:
            if name not in columns:
                columns[name] = array("d", [math.nan]) * sum(epochs[:-1])
        for name, column in columns.items():
            column.extend(history.get(name, [math.nan] * epochs[-1]))
    heads = pd.DataFrame.from_records(
        [(member.key, member.study, member.config.seed) for member in ended], columns=["key", "study", "seed"]
    )
    table = heads.loc[np.repeat(heads.index, epochs)].reset_index(drop=True)
    table["epoch"] = [epoch for count in epochs for epoch in range(1, count + 1)]
    return table.assign(**{f"metrics.{name}": np.asarray(column) for name, column in columns.items()})


def _of_one_type(column: pd.Series) -> pd.Series:
    """A column whose values have one type: numbers among lists become lists, other mixtures become text."""
    if column.dtype != object:
        return column
    present = [value for value in column if not _absent(value)]
    types = {type(value) for value in present}
    if len(types) < 2 or types == {int, float}:
        return column
    if list in types:
        return column.map(lambda value: value if isinstance(value, list) else None if _absent(value) else [value])
    return column.map(lambda value: None if _absent(value) else str(value))


def _absent(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def write(storage: Storage, path: str, table: pd.DataFrame) -> None:
    """Writes a table as Parquet, atomically."""
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pandas(table, preserve_index=False), sink, compression="zstd")
    storage.write(path, sink.getvalue())


def read(storage: Storage, path: str) -> pd.DataFrame:
    """Reads a table; raises FileNotFoundError if it is missing."""
    return pq.read_table(io.BytesIO(storage.read(path))).to_pandas()


def known_run_ids(storage: Storage) -> dict[tuple[str, str], str]:
    """MLflow's run ids by (study, key), from the last results.parquet; empty if it cannot be read."""
    try:
        table = read(storage, RESULTS)
        known = table[table["mlflow_run_id"].notna()]
    except (FileNotFoundError, pa.ArrowException, ValueError, KeyError):
        return {}
    return {
        (study, key): run for study, key, run in zip(known["study"], known["key"], known["mlflow_run_id"], strict=True)
    }
