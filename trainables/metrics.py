"""How metrics are shown to people: each is described beside the code that computes it.

    METRICS["elbo"].title   # "ELBO [nats]"

`trainables.objective`, likelihoods and diagnostics describe their metrics here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from trainables.registry import Registry

Mode = Literal["min", "max"]


@dataclass(frozen=True)
class Metric:
    """How a metric is shown.

    title: with its unit. mode: whether less or more of it is better, unless a study that optimizes it says otherwise.
    starred: whether the best of a column is marked.
    """

    title: str
    mode: Mode = "min"
    starred: bool = True


METRICS: Registry[Metric] = Registry("metric", package="trainables.diagnostics")
"""Metrics by name. On the first miss the diagnostics are imported, and with them all that describe metrics."""


def describe(metrics: Mapping[str, Metric]) -> None:
    """Says how metrics are shown; several components may give one metric.

    Raises:
        ValueError: a metric is already described in another way.
    """
    for name, metric in metrics.items():
        if METRICS.get(name, metric) != metric:
            raise ValueError(f"metric {name!r} has two descriptions: {METRICS[name]} and {metric}; keep one of them")
        METRICS[name] = metric
