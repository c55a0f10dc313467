"""Plans, runs, records and reports sweeps; its modules are the commands. Leaves tensors to `trainables`.

import sweeps
sweeps.results("quickstart").results.groupby("study")["metrics.bits_per_dim"].min()
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING

# Set before MLflow is imported: the program sends nothing that the user did not ask for.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

if TYPE_CHECKING:
    from sweeps.analysis.frames import Frames


def results(name: str, storage: str = "./runs", studies: str | Path | None = None) -> "Frames":
    """The results of a sweep as pandas frames; works also while the sweep runs.

    Args:
        name: name of the sweep.
        storage: folder or URI in which it was run.
        studies: a folder with studies of your own, as with `--studies`.

    Raises:
        UserError: the sweep is not known, has never been run there, or the storage cannot be read.
    """
    from sweeps.analysis.frames import Frames, history_table, results_table
    from sweeps.planning.saved import known_members, last_plan
    from sweeps.records.ledger import UnchangedLedger
    from sweeps.records.storage import Storage
    from sweeps.records.tables import known_run_ids

    place = Storage(storage, name)
    ledger = UnchangedLedger(place)
    members, rows = known_members(last_plan(place, None if studies is None else Path(studies)), ledger), ledger.read()
    return Frames(results_table(members, rows, known_run_ids(place)), history_table(members, rows))
