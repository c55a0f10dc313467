"""Scales: a sweep made smaller in a stated way, to try it out. What a scale gives is marked wherever it is shown."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Config = dict[str, Any]
"""A configuration as plain nested tables."""

STAND_INS = {"mnist": "digits28", "cifar10": "patches", "svhn": "patches", "imagenet32": "patches"}
"""Images that need no download and have the shape of those that do."""


@dataclass(frozen=True)
class Scale:
    """A reduction. What counts epochs shrinks with them, so that a schedule keeps its form.

    epochs: at most so many. seeds: the first so many of each study. images: at most so many a split; None for all.
    values: at most so many of each axis with numbers, its ends and those evenly between; twice as many suggestions.
    draws: of each diagnostic; None for its own number.
    stand_ins: whether other images may stand in for a data set that is missing.
    """

    name: str
    epochs: int
    seeds: int
    images: int | None
    values: int
    draws: int | None = None
    stand_ins: bool = False

    @property
    def statement(self) -> str:
        """What was reduced, in words."""
        images = "" if self.images is None else f", at most {self.images} images a split"
        seeds = "1 seed" if self.seeds == 1 else f"at most {self.seeds} seeds"
        draws = "" if self.draws is None else f", {self.draws} draws a diagnostic"
        return (
            f"at most {self.epochs} epochs, {seeds}{images}, at most {self.values} values of each numeric axis "
            f"and {2 * self.values} suggestions a search{draws}"
        )

    def config(self, config: Config) -> Config:
        """A configuration at this scale."""
        epochs = min(config["epochs"], self.epochs)
        share = epochs / config["epochs"]
        reduced = config | {"epochs": epochs}
        if self.images is not None:
            reduced["data"] = config.get("data", {}) | {"limit": self.images}
        if "diagnostics" in config:
            due = _moved(config["diagnostics"], share)
            reduced["diagnostics"] = due if self.draws is None else {**due, "draws": self.draws}
        if config.get("guide"):
            reduced["guide"] = _guide(config["guide"], share)
        return reduced


SMOKE = Scale("smoke", epochs=2, seeds=1, images=256, values=2, draws=4, stand_ins=True)
DAY = Scale("day", epochs=20, seeds=3, images=None, values=5)
SCALES = {scale.name: scale for scale in (SMOKE, DAY)}


def due_in_time(config: Config, epochs: int) -> Config:
    """A configuration whose diagnostics are due within its epochs: moved as a scale moves them where one is too late.

    epochs: what it trained for before its epochs were changed.
    """
    due = config.get("diagnostics", {})
    last = max((epoch for name, at in due.items() if name != "draws" for epoch in at), default=0)
    if not isinstance(config["epochs"], int) or last <= config["epochs"]:
        return config
    return config | {"diagnostics": _moved(due, config["epochs"] / epochs)}


def _moved(diagnostics: Mapping[str, Any], share: float) -> dict[str, Any]:
    return {
        name: at if name == "draws" else tuple(sorted({_epoch(epoch, share) for epoch in at}))
        for name, at in diagnostics.items()
    }


def _epoch(epoch: int, share: float) -> int:
    """The epoch of a shorter training that corresponds to one of a longer."""
    return max(1, math.ceil(epoch * share))


def _guide(guide: Mapping[str, Any], share: float) -> dict[str, Any]:
    reduced = dict(guide)
    if (freeze := reduced.get("freeze_epoch")) is not None:
        # An encoder that trains at all before it freezes does so here.
        reduced["freeze_epoch"] = max(min(freeze, 2), _epoch(freeze, share))
    if "annealing_rate" in reduced:
        reduced["annealing_rate"] = reduced["annealing_rate"] / share
    return reduced
