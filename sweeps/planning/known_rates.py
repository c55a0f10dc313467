"""Measured training rates: of this machine, or of the reference machines that come with the program."""

import contextlib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from sweeps.errors import UserError
from sweeps.planning.sizes import size_of
from trainables.config import TrainingConfig
from trainables.cost.timing import Rate, program_key


class Rates(BaseModel):
    """Measured rates by `program_key`, and where they were measured."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    machine: str
    rates: Mapping[str, Rate]

    def seconds(self, config: TrainingConfig, data_dir: Path) -> float | None:
        """Seconds that a training takes; None if its kind was not measured.

        Raises:
            UserError: a user's own images cannot be used.
        """
        size = size_of(config.data.name, data_dir)
        rate = self.rates.get(program_key(config, size.image_shape))
        return None if rate is None else rate.seconds(config, size.limited(config.data.limit))


def file_of(device: str, folder: Path) -> Path:
    """Path of the file with the rates of a kind of device (cpu or cuda)."""
    return folder / f"rates-{device}.json"


def known(device: str, folder: Path | None) -> Rates | None:
    """The rates of a kind of device: measured on this machine, else of the reference machine; None if neither exists.

    Args:
        device: cpu or cuda.
        folder: folder of the rates of this machine; None skips them.

    Raises:
        UserError: a file with rates is damaged.
    """
    if folder is not None:
        own = file_of(device, folder)
        with contextlib.suppress(OSError):  # no such file
            content = own.read_bytes()
            try:
                return Rates.model_validate_json(content)
            except ValidationError:
                raise UserError(f"{own} is damaged; delete it and run python -m sweeps.rates again") from None
    along = resources.files("sweeps").joinpath("measured", f"{device}.json")
    return Rates.model_validate_json(along.read_bytes()) if along.is_file() else None
