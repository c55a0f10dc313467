"""The checkpoints of a sweep, and the trained models in them."""

from collections.abc import Iterator

from sweeps.records.storage import Storage
from trainables.checkpoint import CheckpointHeader, read_header
from trainables.config import TrainingConfig
from trainables.models.base import ImageShape
from trainables.trained import TrainedVAE


class NoModelError(Exception):
    """A member's model cannot be loaded; the message says why."""


def headers(storage: Storage) -> Iterator[tuple[str, CheckpointHeader]]:
    """The path and header of each checkpoint. Skips files that are damaged, or replaced at this moment.

    Raises:
        UserError: the storage cannot be read.
    """
    for path in storage.list("checkpoints", ".safetensors", recursive=True):
        try:
            header = read_header(lambda count, path=path: storage.read(path, count))
        except (ValueError, FileNotFoundError):
            continue
        yield path, header


def saved_epochs(storage: Storage) -> dict[str, int]:
    """The last saved epoch of every member that can continue from a checkpoint, by key.

    Raises:
        UserError: the storage cannot be read.
    """
    epochs: dict[str, int] = {}
    for _, header in headers(storage):
        for position in header.kept if header.moments and not header.removed else ():
            key = header.keys[position]
            epochs[key] = max(header.epoch, epochs.get(key, 0))
    return epochs


def trained_model(storage: Storage, config: TrainingConfig, epochs: int, image_shape: ImageShape) -> TrainedVAE:
    """Loads the model of the member with this configuration from the checkpoint of its cohort.

    Args:
        storage: the sweep's.
        config: the member's.
        epochs: of the member's row. A retried member is in several checkpoints.
        image_shape: of its data set.

    Raises:
        NoModelError: there is no such checkpoint, or it is damaged.
        UserError: the storage cannot be read.
    """
    key = config.key()
    for path, header in headers(storage):
        if header.holds(key) and header.epoch == epochs:
            try:
                return TrainedVAE.from_checkpoint(storage.read(path), config, image_shape)
            except (ValueError, FileNotFoundError) as error:
                raise NoModelError(f"{path}: {error}") from None
    raise NoModelError(
        f"no checkpoint has the weights of member {key} after epoch {epochs}; perhaps --keep best or none deleted them"
    )
