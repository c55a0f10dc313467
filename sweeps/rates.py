"""python -m sweeps.rates NAME: measures how fast a sweep's members train on this machine, for `sweeps.run --plan`.

The rates are kept beside the runs, in `rates-DEVICE.json`. Rates of a reference machine come with the program.
"""

import platform
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import torch
import typer

from sweeps.cli import Studies, check_device, run_app, single
from sweeps.errors import UserError
from sweeps.planning import saved
from sweeps.planning.known_rates import Rates, file_of, measured_here
from sweeps.planning.plan import Member, Overrides, Plan
from sweeps.planning.sizes import size_of
from trainables.config import TrainingConfig
from trainables.cost.steps import program_key
from trainables.cost.timing import measure
from trainables.training import resolve_device

_TOGETHER = 8
"""The largest number of members that are measured together."""


def measured(members: Iterable[Member], device: str, data_dir: Path) -> Rates:
    """Measures the rate of every kind of training step among the members."""
    kinds: dict[str, list[TrainingConfig]] = defaultdict(list)
    for member in members:
        shape = size_of(member.config.data.name, data_dir).image_shape
        kinds[program_key(member.config, shape)].append(member.config)
    torch.set_num_threads(1)
    where = resolve_device(device)
    rates = {}
    for key, configs in kinds.items():
        same = [config for config in configs if config.shape_key() == configs[0].shape_key()]
        shape = size_of(same[0].data.name, data_dir).image_shape
        rates[key] = measure(same[: _together(same[0], where)], shape, where)
    return Rates(machine=_machine(where), rates=rates)


def _together(config: TrainingConfig, device: torch.device) -> int:
    packs = device.type != "cpu" or (config.encoder.packs_on_cpu and config.decoder.packs_on_cpu)
    return _TOGETHER if packs else 1


def _machine(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    return f"{_processor()}, one thread, torch {torch.__version__}"


def _processor() -> str:
    """The processor's name; the name of its architecture if the system does not tell it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def rates(
    name: Annotated[str, typer.Argument(help="Name of the sweep.")],
    only: Annotated[
        str | None, typer.Option(metavar="GLOB", help="Only the studies that match, and the studies they depend on.")
    ] = None,
    studies: Studies = None,
    device: Annotated[str, typer.Option(help="Device: auto, cpu or cuda.")] = "auto",
    data_dir: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the data sets.")] = Path("data"),
    storage: Annotated[Path, typer.Option(metavar="DIR", help="Storage folder, where the rates are saved.")] = Path(
        "runs"
    ),
) -> None:
    """Measures how fast the members of a sweep train on this machine, for `python -m sweeps.run NAME --plan`."""
    check_device(device)
    plan = Plan(saved.find_sweep(name, studies), Overrides(only=only))
    try:
        storage.mkdir(parents=True, exist_ok=True)  # before the measurement, which takes minutes
    except OSError as error:
        raise UserError(f"--storage {str(storage)!r} cannot be made: {error.strerror}") from None
    kind = resolve_device(device).type
    found = measured((member for study in plan.studies for member in plan.expected(study)), kind, data_dir.absolute())
    path, before = file_of(kind, storage), measured_here(kind, storage)
    kept = dict(before.rates) if before is not None and before.machine == found.machine else {}
    path.write_text(Rates(machine=found.machine, rates=kept | dict(found.rates)).model_dump_json(indent=1))
    print(f"Measured {len(found.rates)} kinds of training on {found.machine}; saved in {path}")


if __name__ == "__main__":
    run_app(single(rates), "python -m sweeps.rates")
