"""Descriptions of a study's figures, which the report draws.

Metrics have the names of the results (`bits_per_dim`, `elbo`, …); None means the study's own metric. Labels are dotted
paths of axes or names of variants. A figure with `panels` is drawn once for each value of that label.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Heatmap:
    """A heatmap of the mean of a metric over two labels. Marks cells with equal labels, and the best cell.

    log: shows the natural logarithm of the mean.
    """

    rows: str
    columns: str
    metric: str | None = None
    panels: str | None = None
    log: bool = False


@dataclass(frozen=True)
class Lines:
    """A metric over a numeric label: mean and standard error over seeds, one line for each value of `series`."""

    x: str
    series: str | None = None
    metric: str | None = None
    panels: str | None = None
    log_x: bool = False
    log_y: bool = False


@dataclass(frozen=True)
class Curves:
    """A metric over epochs: mean and standard error over seeds, one curve for the best configuration of each `series`.

    target: a value of the metric; draws it, and adds a table of the epochs and seconds until each curve reaches it.
    """

    series: str
    metric: str | None = None
    panels: str | None = None
    target: float | None = None
    log_y: bool = False


@dataclass(frozen=True)
class Images:
    """Images by the best member of each `series`: reconstructions of validation images, or samples from the prior.

    A reconstruction shows the mean and, if the decoder learns it, the standard deviation of each pixel, normalized
    within an image.
    """

    series: str
    samples: bool = False
    panels: str | None = None


Figure = Heatmap | Lines | Curves | Images
