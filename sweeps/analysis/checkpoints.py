"""Loads trained models from the checkpoints of a sweep."""

from sweeps.planning.plan import Member
from sweeps.records.ledger import Row
from sweeps.records.storage import Storage
from trainables.checkpoint import CheckpointHeader, read_header
from trainables.models.base import ImageShape
from trainables.trained import TrainedVAE


class NoModelError(Exception):
    """A member's model cannot be loaded; the message says why."""


def trained_model(storage: Storage, member: Member, row: Row, image_shape: ImageShape) -> TrainedVAE:
    """Loads a member's model from the checkpoint of its cohort.

    Raises:
        NoModelError: there is no such checkpoint, or it is damaged.
        UserError: the storage cannot be read.
    """
    for path in storage.list("checkpoints", ".safetensors", recursive=True):
        header = _header(storage, path)
        # A retried member is in several checkpoints.
        if header is not None and header.holds(member.key) and header.epoch == row.epochs:
            try:
                return TrainedVAE.from_checkpoint(storage.read(path), member.config, image_shape)
            except (ValueError, FileNotFoundError) as error:
                raise NoModelError(f"{path}: {error}") from None
    raise NoModelError(
        f"no checkpoint holds member {member.key} after epoch {row.epochs}; --keep best and none delete weights"
    )


def _header(storage: Storage, path: str) -> CheckpointHeader | None:
    try:
        return read_header(lambda count: storage.read(path, count))
    except (ValueError, FileNotFoundError):
        return None  # damaged, or replaced at this moment
