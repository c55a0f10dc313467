"""What can be drawn of a study: plain descriptions, which the report draws.

Metrics are named as in results (`bits_per_dim`, `elbo`, …); None stands for the study's own. Labels are dotted paths of
axes or names of variants. A figure with `panels` is drawn once for each value of that label.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Heatmap:
    """The mean of a metric over two labels; the cells where both are equal are marked, and so is the best one.

    log: shown is the natural logarithm of the mean.
    """

    rows: str
    columns: str
    metric: str | None = None
    panels: str | None = None
    log: bool = False


@dataclass(frozen=True)
class Lines:
    """A metric over a label with numbers, mean and standard error over seeds; a line for each value of `series`."""

    x: str
    series: str | None = None
    metric: str | None = None
    panels: str | None = None
    log_x: bool = False
    log_y: bool = False


@dataclass(frozen=True)
class Curves:
    """A metric over epochs, mean and standard error over seeds; a curve for the best configuration of each `series`.

    target: where it is given, the first epoch that reaches it is told for every curve.
    """

    series: str
    metric: str | None = None
    panels: str | None = None
    target: float | None = None
    log_y: bool = False


@dataclass(frozen=True)
class Images:
    """Reconstructions of validation images by the best member of each `series`: mean and, where the decoder learns one,
    the standard deviation of each pixel, normalized within an image; or samples from the prior."""

    series: str
    samples: bool = False
    panels: str | None = None


Figure = Heatmap | Lines | Curves | Images
