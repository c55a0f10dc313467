"""Measures trained members beside the loss, one file a diagnostic. Imports `packing` and `estimators`.

    from trainables.diagnostics import measure
    measure(cohort, ["gradient_variance"])   # {"gradient_variance": [M] float64}

`TrainingConfig.diagnostics` says after which epochs to measure; `trainables.diagnose` measures saved members. New
files are registered automatically.
"""

from trainables.diagnostics.base import DIAGNOSTICS, Diagnostic, measure, measure_due
from trainables.registry import import_submodules

import_submodules(__name__, __path__)

__all__ = ["DIAGNOSTICS", "Diagnostic", "measure", "measure_due"]
