"""Plans, runs, records and reports sweeps; its modules are the commands. Leaves tensors to `trainables`.

import sweeps
sweeps.results("quickstart").results.groupby("study")["metrics.bits_per_dim"].min()
"""

import os
from typing import TYPE_CHECKING

# Before anything imports MLflow: nothing leaves the machine that the user did not ask for.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

if TYPE_CHECKING:
    from sweeps.analysis.frames import Frames


def results(name: str, storage: str = "./runs") -> "Frames":
    """What a sweep has come to, as pandas frames; also while it runs.

    Args:
        name: of the sweep.
        storage: the folder or URI it was run in.

    Raises:
        UserError: it has never been run there.
    """
    from sweeps.analysis.frames import load

    return load(name, storage)
