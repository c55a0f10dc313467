"""Scales: reduce a sweep in a stated way, to try it out. Results at a scale are marked wherever they are shown."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

Config = dict[str, Any]
"""A configuration as plain nested dictionaries."""

STAND_INS = {"mnist": "digits28", "cifar10": "patches", "svhn": "patches", "imagenet32": "patches"}
"""By name of a data set, a data set with images of the same shape that needs no download."""


_SETTINGS = {"epochs": "epochs", "data.limit": "images", "diagnostics.draws": "draws"}
"""The fields of a scale by the dotted path of what they limit."""
_UNSET = object()


@dataclass(frozen=True)
class Scale:
    """A reduction of a sweep. Numbers counted in epochs shrink with the epochs, so that schedules keep their form.

    epochs: the most epochs of a training.
    seeds: the most seeds of a study; the first ones are kept.
    images: the most images of a split; None for all.
    values: the most values of a numeric axis, evenly chosen with both ends; a search has at most twice as many
        suggestions.
    draws: the number of draws of each diagnostic; None for its own number.
    stand_ins: whether stand-ins may replace missing data sets.
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
        """The reduction in words."""
        images = "" if self.images is None else f", at most {self.images} images a split"
        epochs = "1 epoch" if self.epochs == 1 else f"{self.epochs} epochs"
        seeds = "1 seed" if self.seeds == 1 else f"at most {self.seeds} seeds"
        draws = "" if self.draws is None else f", {self.draws} draws a diagnostic"
        return (
            f"at most {epochs}, {seeds}{images}, at most {self.values} values of each numeric axis "
            f"and {2 * self.values} suggestions a search{draws}"
        )

    def with_settings(self, settings: Mapping[str, Any]) -> "Scale":
        """The scale with the epochs, images and draws of `--set`, so that it states and plans what is trained.

        settings: values by dotted path. Values of wrong types are left out; they are reported with the configurations.
        """
        scale = self
        for path, name in _SETTINGS.items():
            value = settings.get(path, _UNSET)
            if (type(value) is int and value > 0) or (value is None and name != "epochs"):
                scale = replace(scale, **{name: value})
        return scale

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
    """A configuration with diagnostics due within its epochs. If one is too late, all are moved as by a scale.

    epochs: its number of epochs before it was changed.
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
    """The epoch of a shorter training that corresponds to `epoch` of the longer one."""
    return max(1, math.ceil(epoch * share))


def _guide(guide: Mapping[str, Any], share: float) -> dict[str, Any]:
    reduced = dict(guide)
    if (freeze := reduced.get("freeze_epoch")) is not None:
        # An encoder that trains at least one epoch before it freezes still does so.
        reduced["freeze_epoch"] = max(min(freeze, 2), _epoch(freeze, share))
    if "annealing_rate" in reduced:
        reduced["annealing_rate"] = reduced["annealing_rate"] / share
    return reduced
