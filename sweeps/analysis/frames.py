"""Results as tables: one with a row for each member, one with a row for each member and epoch."""

import math
from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from sweeps.planning.plan import Member
from sweeps.records.ledger import Row


@dataclass(frozen=True)
class Frames:
    """A sweep's results.

    results: a row for each member (`results_table`). history: a row for each member and epoch (`history_table`).
    """

    results: pd.DataFrame
    history: pd.DataFrame


def results_table(
    members: Iterable[Member], rows: Mapping[str, Row], run_ids: Mapping[tuple[str, str], str]
) -> pd.DataFrame:
    """A row for each member.

    Columns: key, study, seed, status, reason, epochs, wall_s, mlflow_run_id, confirms, config.* and metrics.*.
    `confirms` is true where the seed confirms a finalist and chose nothing. The status of members without a ledger row
    is "planned". Units of metrics: `trainables.objective.metrics_of`.
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
            "confirms": member.confirms,
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
