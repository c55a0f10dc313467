"""Resolves the precision `auto`: bf16 if it was measured to leave bits_per_dim nearly unchanged, else float32.

The measurements come with the program (`measured/precision.json`, written by `benchmarks/precision.py`), so that a
configuration and its key are the same on every machine.
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
"""Largest negligible change of the mean validation bits_per_dim by bf16, up or down, in bits per dimension."""
KIND = ("data.name", "latent", "encoder.name", "decoder.name", "likelihood.name")
"""Fields, or tables of fields, that a measurement and a configuration must have in common."""


class Change(BaseModel):
    """Change of bits_per_dim from float32 to bf16: mean over seeds, and its 95 % confidence interval."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mean: float
    low: float
    high: float

    @property
    def negligible(self) -> bool:
        """Whether the whole interval is within `TOLERANCE`."""
        return -TOLERANCE <= self.low <= self.high <= TOLERANCE


class Measurement(BaseModel):
    """The measurement of one model. Its further figures are not used here."""

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
    """The fields of `KIND` in a configuration, by dotted path."""
    return {path: value for path, value in config.flat().items() if path.startswith(KIND)}


def chosen(config: TrainingConfig, measurements: Sequence[Measurement] | None = None) -> Precision:
    """The precision for `auto`: bf16 if the kind was measured and every measurement is negligible, else float32.

    measurements: None for the measurements that come with the program.
    """
    kind = kind_of(config)
    found = [one for one in (measured() if measurements is None else measurements) if one.kind == kind]
    return "bf16" if found and all(one.change.negligible for one in found) else "float32"


def complete(config: Mapping[str, Any]) -> TrainingConfig:
    """The validated configuration, with `auto` replaced by the chosen precision.

    Raises:
        ValidationError: the configuration is not valid.
    """
    if config.get("precision") != AUTO:
        return TrainingConfig.model_validate(config)
    resolved = TrainingConfig.model_validate({**config, "precision": "float32"})
    return resolved.model_copy(update={"precision": chosen(resolved)})
