"""Titles and units of metrics, and whether less or more is better."""

from dataclasses import dataclass, replace
from typing import Literal

from search_spaces.space import Study

Mode = Literal["min", "max"]


@dataclass(frozen=True)
class Metric:
    """How a metric is shown.

    title: name and unit. mode: "min" if less is better; the study that optimizes the metric may decide otherwise.
    starred: whether the best value of a column is marked.
    """

    title: str
    mode: Mode = "min"
    starred: bool = True


METRICS = {
    "bits_per_dim": Metric("bits/dim"),
    "elbo": Metric("ELBO [nats]", "max"),
    # Silent Gradients, section 4.2, reads a larger KL as a more informative code; alone it is neither good nor bad.
    "kl": Metric("KL [nats]", "max", starred=False),
    "mse": Metric("squared error"),
    "mse_per_pixel": Metric("squared error a pixel"),
    "bce": Metric("BCE [nats]"),
    "saturated": Metric("saturated latents"),
    "gradient_variance": Metric("gradient variance"),
    "gradient_gap": Metric("gradient gap [nats]"),
    "exact_gradient_norm": Metric("norm of the exact gradient", starred=False),
    "gradient_spread": Metric("gradient spread"),
    "gradient_bias_over_exact": Metric("gradient bias / |exact gradient|"),
    "gradient_spread_over_exact": Metric("gradient spread / |exact gradient|"),
    "gradient_cosine": Metric("cosine with the exact gradient", "max"),
    "iw_bound": Metric("importance-weighted bound [nats]", "max"),
}
SHOWN = ("bits_per_dim", "elbo", "kl", "mse", "bce")
"""The default columns of a study."""
TEST = "test_"
"""The prefix of metrics on the test images."""


def metric(name: str) -> Metric:
    """How a metric is shown; an unknown metric is shown by its name."""
    known = METRICS.get(name.removeprefix(TEST), Metric(name.replace("_", " ")))
    return replace(known, title=f"{known.title}, test images") if name.startswith(TEST) else known


def direction(study: Study, name: str) -> Mode:
    """Whether a study takes less ("min") or more ("max") of a metric as better."""
    return study.mode if name == study.metric else metric(name).mode
