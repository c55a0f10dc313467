"""Charts as data, which the page's script draws with values on hover. The static figures show the same."""

import math
from dataclasses import dataclass
from typing import Literal

from sweeps.analysis.numbers import number

Limits = tuple[float, float]
Scale = Literal["value", "log"]


@dataclass(frozen=True)
class Point:
    """A mean in a chart. low, high: one standard error below and above. text: what is shown on hover."""

    x: float
    y: float
    low: float
    high: float
    text: str


@dataclass(frozen=True)
class Line:
    """A named line."""

    name: str
    points: list[Point]


@dataclass(frozen=True)
class LineChart:
    """Lines with bands of one standard error. limits: of the y axis; None for those of the lines."""

    x_title: str
    y_title: str
    x_scale: Scale
    y_scale: Scale
    lines: list[Line]
    limits: Limits | None = None
    kind: Literal["lines"] = "lines"


@dataclass(frozen=True)
class Field:
    """A field of a heatmap.

    colour: the number that its colour shows. inside: the text in it. ink: the colour of that text.
    text: shown on hover. outlined: both labels are equal.
    """

    column: int
    row: int
    colour: float
    inside: str
    ink: str
    text: str
    outlined: bool


@dataclass(frozen=True)
class HeatmapChart:
    """A heatmap. mode: whether small or large numbers are good."""

    x_title: str
    y_title: str
    title: str
    columns: list[str]
    rows: list[str]
    mode: Literal["min", "max"]
    fields: list[Field]
    kind: Literal["heatmap"] = "heatmap"


Chart = LineChart | HeatmapChart


def told(value: float, stderr: float, n: int) -> str:
    """A mean as it is shown on hover: "0.543 ± 0.012 (3 seeds)"."""
    return f"{number(value, stderr)} ({n} seed{'s' * (n > 1)})"


def point(x: float, value: float, stderr: float, n: int) -> Point:
    """The mean at one place of a line; a single seed has no error (NaN)."""
    error = 0.0 if math.isnan(stderr) else stderr
    return Point(x, value, value - error, value + error, told(value, stderr, n))
