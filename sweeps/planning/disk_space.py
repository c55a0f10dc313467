"""Checks, before training starts, that the storage has enough space for the plan."""

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
_BYTES_A_VALUE = 8 * 3 + 250  # 8 each in the ledger, the history, and its new copy while replaced; 250 in MLflow
_BYTES_A_MEMBER = 16 * 2**10
_BYTES_A_SWEEP = 4 * 2**20


def needed_bytes(members: Iterable[Member], data_dir: Path) -> int:
    """An upper estimate of the bytes that training takes: checkpoints, ledger, tables and MLflow.

    Checkpoints of ended members hold only weights. Those of members in training also hold the optimizer's moments
    (about three times as much), twice while the file is replaced; assumed for all members of the largest shape at once.

    Raises:
        UserError: a network does not fit its images, or a user's own images cannot be used.
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


def weights_bytes(members: Iterable[Member], data_dir: Path) -> int:
    """The part of `needed_bytes` that the weights of ended members take; raises as it does."""
    sizes: dict[str, int] = {}
    total = 0
    for member in members:
        if member.shape not in sizes:
            with member.building():
                image_shape = size_of(member.config.data.name, data_dir).image_shape
                sizes[member.shape] = checkpoint_bytes(member.config, image_shape, ended=True)
        total += sizes[member.shape]
    return total


def check(storage: Storage, members: Iterable[Member], data_dir: Path) -> None:
    """Checks that the results of the members fit into the storage, if the storage is local.

    Raises:
        UserError: there is not enough space, or as `needed_bytes`.
    """
    if not storage.local:
        return
    members = tuple(members)
    need, have = needed_bytes(members, data_dir), shutil.disk_usage(storage.local_path).free
    if need > have:
        raise UserError(
            f"--storage {storage.uri!r} has {_megabytes(have)} free, but {len(members)} trainings need about "
            f"{_megabytes(need)}; free some space, or use another --storage"
        )


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.0f} MB"
