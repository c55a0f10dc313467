"""Tells which metrics a training does not measure, although another configuration would."""

from trainables.config import TrainingConfig
from trainables.likelihoods import LIKELIHOODS
from trainables.measurements import DIAGNOSTIC_NAMES, DIAGNOSTICS


def unmeasured(config: TrainingConfig) -> set[str]:
    """The metrics of all diagnostics and likelihoods, without those that this training measures."""
    known = {metric for name in DIAGNOSTIC_NAMES for metric in DIAGNOSTICS[name].metrics}
    known |= {metric for likelihood in LIKELIHOODS.values() for metric in likelihood.metrics}
    measured = {metric for name, _ in config.diagnostics.due() for metric in DIAGNOSTICS[name].metrics}
    return known - measured - set(config.likelihood.metrics)
