"""Diagnostics: what is measured of trained members beside the loss. One file an idea; a file added here is found.

    from trainables.diagnostics import measure
    measure(cohort, ["gradient_variance"])   # {"gradient_variance": [M] float64}

During training, `TrainingConfig.diagnostics` says after which epochs; `trainables.diagnose` measures saved members.
"""

from trainables.diagnostics.base import DIAGNOSTICS, Diagnostic, measure, measure_due
from trainables.registry import import_submodules

import_submodules(__name__, __path__)

__all__ = ["DIAGNOSTICS", "Diagnostic", "measure", "measure_due"]
