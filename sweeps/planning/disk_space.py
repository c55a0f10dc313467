"""How much space a plan takes where it is stored, asked before anything is trained."""

import shutil
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from sweeps.errors import UserError
from sweeps.planning.plan import Member
from sweeps.planning.sizes import size_of
from sweeps.records.storage import Storage
from trainables.cost.size import checkpoint_bytes

# Measured on quickstart: 64 members, 3 to 60 epochs of 8 metrics.
_METRICS = 8
_BYTES_A_VALUE = 8 * 3 + 250  # in ledger, history and history while it is replaced; in MLflow's database
_BYTES_A_MEMBER = 16 * 2**10
_BYTES_A_SWEEP = 4 * 2**20


def needed_bytes(members: Iterable[Member], data_dir: Path) -> int:
    """About the most that training the members takes: checkpoints, ledger, tables and MLflow.

    Checkpoints of ended members hold weights alone. Members in training need three times as much for the optimizers'
    moments, and twice that while their file is replaced; counted so for all members of the largest shape.

    Raises:
        UserError: a network does not go with its images.
    """
    ended: dict[str, int] = defaultdict(int)
    training: dict[str, int] = defaultdict(int)
    sizes: dict[str, tuple[int, int]] = {}
    total = _BYTES_A_SWEEP
    for member in members:
        config, shape = member.config, member.shape
        if shape not in sizes:
            with member.building():
                image_shape = size_of(config.data.name, data_dir).image_shape
                sizes[shape] = checkpoint_bytes(config, image_shape, ended=True), checkpoint_bytes(config, image_shape)
        weights, whole = sizes[shape]
        ended[shape] += weights
        training[shape] += 2 * whole - weights
        total += _BYTES_A_MEMBER + config.epochs * _METRICS * _BYTES_A_VALUE
    return total + sum(ended.values()) + max(training.values(), default=0)


def check(storage: Storage, members: Iterable[Member], data_dir: Path) -> None:
    """Whether the members still to be trained fit where they are to be stored; other hosts' storage is not asked.

    Raises:
        UserError: they do not.
    """
    if not storage.local:
        return
    members = tuple(members)
    need, have = needed_bytes(members, data_dir), shutil.disk_usage(storage.local_path).free
    if need > have:
        raise UserError(
            f"--storage {storage.uri!r} has {_megabytes(have)} free, and {len(members)} trainings need about "
            f"{_megabytes(need)}; make room, or use another --storage"
        )


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.0f} MB"
