"""Titles and units of metrics, and whether less or more is better."""

from dataclasses import replace

from search_spaces.space import Study
from trainables.metrics import METRICS, Metric, Mode
from trainables.registry import UnknownName

__all__ = ["SHOWN", "TEST", "Metric", "Mode", "direction", "metric"]

SHOWN = ("bits_per_dim", "elbo", "kl", "mse", "bce", "active_units", "codebook_perplexity")
"""The default columns of a study."""
TEST = "test_"
"""The prefix of metrics on the test images."""


def metric(name: str) -> Metric:
    """How a metric is shown; an unknown metric is shown by its name."""
    try:
        known = METRICS[name.removeprefix(TEST)]
    except UnknownName:
        known = Metric(name.replace("_", " "))
    return replace(known, title=f"{known.title}, test images") if name.startswith(TEST) else known


def direction(study: Study, name: str) -> Mode:
    """Whether a study takes less ("min") or more ("max") of a metric as better."""
    return study.mode if name == study.metric else metric(name).mode
