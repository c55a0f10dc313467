"""Trained models from the checkpoints of a sweep."""

import json

from sweeps.planning.plan import Member
from sweeps.records.ledger import Row
from sweeps.records.storage import Storage
from trainables.models.base import ImageShape
from trainables.trained import TrainedVAE
from trainables.training import CheckpointHeader

_HEADER_LIMIT = 100_000_000
"""Bytes of JSON at the beginning of a safetensors file, at most, by its specification."""


class NoModelError(Exception):
    """A member's model cannot be had; the message says why."""


def trained_model(storage: Storage, member: Member, row: Row, image_shape: ImageShape) -> TrainedVAE:
    """A member's model, from the checkpoint of the cohort that it was trained in.

    Raises:
        NoModelError: there is no such checkpoint, or it is damaged.
    """
    for path in storage.list("checkpoints", ".safetensors", recursive=True):
        header = _header(storage, path)
        # A member that was tried more than once is in several.
        if header is not None and member.key in header.keys and header.epoch == row.epochs:
            try:
                return TrainedVAE.from_checkpoint(storage.read(path), member.config, image_shape)
            except (ValueError, FileNotFoundError) as error:
                raise NoModelError(f"{path}: {error}") from None
    raise NoModelError(f"no checkpoint holds member {member.key} after epoch {row.epochs}")


def _header(storage: Storage, path: str) -> CheckpointHeader | None:
    try:
        size = int.from_bytes(storage.read(path, 8), "little")
        if size > _HEADER_LIMIT:
            return None
        metadata = json.loads(storage.read(path, 8 + size)[8:])["__metadata__"]
        return CheckpointHeader.model_validate_json(metadata["training"])
    except (ValueError, KeyError, TypeError, FileNotFoundError):
        return None  # damaged, or replaced at this moment
