"""Renames metrics that were recorded under a former name."""

from collections.abc import Mapping
from typing import TypeVar

V = TypeVar("V")

RENAMED = {"gradient_bias": "gradient_bias_over_exact", "gradient_std": "gradient_spread_over_exact"}
"""Present names by former names; the numbers are the same."""


def renamed(metrics: Mapping[str, V]) -> dict[str, V]:
    """Metrics by their present names, in the same order."""
    return {RENAMED.get(name, name): value for name, value in metrics.items()}
