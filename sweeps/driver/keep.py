"""Deletes weights of ended members at the end of a run, as `--keep` asks."""

import contextlib
from collections.abc import Mapping, Set
from typing import Literal, get_args

from sweeps.analysis.cells import cells
from sweeps.planning.unfold import Unfoldings
from sweeps.records.checkpoints import headers
from sweeps.records.ledger import Row
from sweeps.records.storage import Storage
from trainables.checkpoint import CheckpointHeader, only

Keep = Literal["best", "last", "none"]
"""last: the weights of every ended member. best: of the members that report and model registry show. none: nothing."""
KEEPS: tuple[Keep, ...] = get_args(Keep)


def wanted(keep: Keep, unfoldings: Unfoldings, rows: Mapping[str, Row]) -> set[str] | None:
    """The keys of the members whose weights stay; None for all.

    best: the member of each study that is registered as a model, and the members in figures of images.
    """
    if keep == "last":
        return None
    keys: set[str] = set()
    if keep == "best":
        from sweeps.report.reconstructions import shown  # matplotlib takes a second to import
        from sweeps.tracking.registry import best_of  # and MLflow several

        for unfolding in unfoldings.values():
            study, members = unfolding.study, unfolding.members()
            keys |= shown(study, cells(study, members, rows))
            best = best_of(unfoldings.plan.sweep.name, study, [(m, rows[m.key]) for m in members if m.key in rows])
            if best is not None:
                keys.add(best.member.key)
    return keys


def remove_weights(storage: Storage, rows: Mapping[str, Row], keys: Set[str]) -> None:
    """Deletes the weights of ended members from their cohorts' checkpoints, file by file and each atomically.

    A file stays as it is if it holds a member that has no row here, or if all of its members failed: a training may go
    on from it. So does a damaged file.

    Args:
        storage: the sweep's; its lock must be held.
        rows: of the members of this run's plan.
        keys: of the members to keep.

    Raises:
        UserError: the storage cannot be read or written, or the lock is lost.
    """
    for path, header in headers(storage):
        if not _over(header, rows):
            continue
        held = {key for key in header.keys if header.holds(key)}
        # A member that was tried more than once is in several files, and its last weights in one.
        kept = {key for key in held & keys if rows[key].epochs == header.epoch}
        if not kept:
            storage.delete(path)
        elif kept < held:
            with contextlib.suppress(ValueError, FileNotFoundError):
                if (content := only(storage.read(path), kept)) is not None:
                    storage.write(path, content)


def _over(header: CheckpointHeader, rows: Mapping[str, Row]) -> bool:
    """Whether a checkpoint is not needed to continue a training."""
    return all(key in rows for key in header.keys) and any(rows[key].status != "failed" for key in header.keys)
