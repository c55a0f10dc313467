"""Measured training rates: of this machine, and of the reference machines that come with the program."""

import contextlib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from sweeps.errors import UserError
from sweeps.planning.sizes import size_of
from trainables.config import TrainingConfig
from trainables.cost.steps import program_key
from trainables.cost.timing import Rate


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


def measured_here(device: str, folder: Path) -> Rates | None:
    """The rates that `sweeps.rates` kept in a folder; None if it has none.

    Raises:
        UserError: the file is damaged.
    """
    own = file_of(device, folder)
    with contextlib.suppress(OSError):  # there is none
        content = own.read_bytes()
        try:
            return Rates.model_validate_json(content)
        except ValidationError:
            raise UserError(f"{own} is damaged; delete it and run python -m sweeps.rates again") from None
    return None


def known(device: str, folder: Path | None) -> Rates | None:
    """The rates measured on this machine, and for other kinds of training those that come with the program.

    Returns:
        None if there are neither.

    Raises:
        UserError: a file with rates is damaged.
    """
    own = None if folder is None else measured_here(device, folder)
    file = resources.files("sweeps").joinpath("measured", f"{device}.json")
    along = Rates.model_validate_json(file.read_bytes()) if file.is_file() else None
    if own is None or along is None:
        return own or along
    machine = f"{own.machine} (other kinds of training: on {along.machine})"
    return Rates(machine=machine, rates=dict(along.rates) | dict(own.rates))
