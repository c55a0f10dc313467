"""Which precision `auto` stands for: bf16 where it was measured to move bits_per_dim by next to nothing, else float32.

What was measured comes with the program (`measured/precision.json`, written by `benchmarks/precision.py`), so that a
configuration, and with it its key, is the same on every machine.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict

from trainables.config import Precision, TrainingConfig

AUTO = "auto"
PRECISIONS = (AUTO, *get_args(Precision))
TOLERANCE = 0.002
"""Bits a pixel that bf16 may move the mean validation bits_per_dim by, either way."""
KIND = ("data.name", "latent", "encoder.name", "decoder.name", "likelihood.name")
"""The fields, or tables of fields, by which a measurement applies to a configuration."""


class Change(BaseModel):
    """Of bits_per_dim from float32 to bf16: mean over seeds, and its 95 % confidence interval."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mean: float
    low: float
    high: float

    @property
    def negligible(self) -> bool:
        """Whether all of the interval is within the tolerance."""
        return -TOLERANCE <= self.low <= self.high <= TOLERANCE


class Measurement(BaseModel):
    """What was measured of one model; nothing is decided by its other figures."""

    model_config = ConfigDict(frozen=True, extra="allow")

    kind: Mapping[str, Any]
    change: Change


class _Measured(BaseModel):
    rows: tuple[Measurement, ...]


@cache
def measured() -> tuple[Measurement, ...]:
    """The measurements that come with the program."""
    file = resources.files("sweeps").joinpath("measured", "precision.json")
    return _Measured.model_validate_json(file.read_bytes()).rows


def kind_of(config: TrainingConfig) -> dict[str, Any]:
    """The fields of `KIND`, by dotted path."""
    return {path: value for path, value in config.flat().items() if path.startswith(KIND)}


def chosen(config: TrainingConfig, measurements: Sequence[Measurement] | None = None) -> Precision:
    """What `auto` is for a configuration: bf16 where its kind was measured, and passed every time.

    measurements: None for those that come with the program.
    """
    kind = kind_of(config)
    found = [one for one in (measured() if measurements is None else measurements) if one.kind == kind]
    return "bf16" if found and all(one.change.negligible for one in found) else "float32"


def complete(config: Mapping[str, Any]) -> TrainingConfig:
    """A configuration as it is trained; its precision may be `auto` until then.

    Raises:
        ValidationError: it is not valid.
    """
    if config.get("precision") != AUTO:
        return TrainingConfig.model_validate(config)
    resolved = TrainingConfig.model_validate({**config, "precision": "float32"})
    return resolved.model_copy(update={"precision": chosen(resolved)})
