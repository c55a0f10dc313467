"""Checkpoints of cohorts: their format, their files, and what is kept of members that have ended.

Shapes. M members whose tensors a checkpoint holds.

A checkpoint is a safetensors file. Its metadata hold a header, the JSON of `CheckpointHeader`, and a checksum. Every
tensor has one row for each member, except the history [epochs, all members]. While a cohort trains, its checkpoint
holds weights and the optimizers' moments; once all members have ended, it holds weights alone, a third of the size.
Reading executes no code.
"""

import contextlib
import hashlib
import json
from collections.abc import Callable, Collection
from typing import Annotated, Literal, Self

import safetensors.torch
from pyarrow import fs
from pydantic import BaseModel, ConfigDict, Field, model_validator
from safetensors import SafetensorError
from torch import Tensor

from trainables.filesystem import appearing, located

CHECKPOINT_FORMAT = 1
HISTORY = "history/"
"""Begins the names of the history's tensors."""
MOMENTS = ("mean/", "square/")
"""Begin the names of the optimizers' moments."""
_HEADER_LIMIT = 100_000_000
"""The most bytes of JSON at the beginning of a safetensors file, by its specification."""
_Position = Annotated[int, Field(ge=0)]


class Dropped(BaseModel):
    """A member that trains no more: the last epoch it was trained, and the epoch it diverged in, if it did."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    epoch: Annotated[int, Field(ge=1)]
    diverged: Annotated[int | None, Field(ge=1)] = None


class CheckpointHeader(BaseModel):
    """The contents of a checkpoint, without its tensors.

    keys: of all members of the cohort.
    kept: the positions in `keys` of the members whose tensors the file holds, in the order of their rows.
    dropped: the members that were stopped or diverged before the end, by position.
    removed: the positions of ended members whose tensors were deleted to save space (`only`).
    epoch: the last one trained.
    metrics: names of the history's metrics, in their order.
    moments: whether the file holds the optimizers' moments, which only a training that goes on needs.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)

    format: Literal[1] = 1
    keys: list[str]
    kept: list[_Position]
    dropped: dict[int, Dropped]
    removed: list[_Position] = []
    epoch: _Position
    wall_s: Annotated[float, Field(ge=0)]
    metrics: list[str]
    moments: bool = True

    @model_validator(mode="after")
    def _positions_fit(self) -> Self:
        if sorted([*self.kept, *self.dropped, *self.removed]) != list(range(len(self.keys))):
            raise ValueError("every member is kept, dropped or removed")
        return self

    def member(self, key: str) -> int:
        """The row of a member's tensors.

        Raises:
            KeyError: the file holds no tensors of this member.
        """
        position = self.keys.index(key) if key in self.keys else -1
        if position not in self.kept:
            raise KeyError(key)
        return self.kept.index(position)

    def holds(self, key: str) -> bool:
        """Whether the file holds the tensors of a member."""
        return key in self.keys and self.keys.index(key) in self.kept


def write_checkpoint(header: CheckpointHeader, tensors: dict[str, Tensor]) -> bytes:
    """A checkpoint of these tensors, which are on the CPU."""
    text = header.model_dump_json()
    return safetensors.torch.save(tensors, metadata={"training": text, "sha256": _sha256(text, tensors)})


def read_checkpoint(checkpoint: bytes) -> tuple[CheckpointHeader, dict[str, Tensor]]:
    """Header and tensors of a checkpoint.

    Raises:
        ValueError: not a checkpoint of this format, or a damaged one.
    """
    try:
        metadata = _metadata(lambda count: checkpoint[:count])
        header = CheckpointHeader.model_validate_json(metadata["training"])
        tensors = safetensors.torch.load(checkpoint)
        intact = metadata["sha256"] == _sha256(metadata["training"], tensors)
    except (SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"not a training checkpoint of format {CHECKPOINT_FORMAT} ({type(error).__name__})") from None
    if not intact:
        raise ValueError("this checkpoint is damaged: its checksum differs")
    return header, tensors


def read_header(first: Callable[[int], bytes]) -> CheckpointHeader:
    """The header of a checkpoint, without reading its tensors, and so without a check of its checksum.

    Args:
        first: gives the first bytes of the file, as many as it is asked for.

    Raises:
        ValueError: not a checkpoint of this format.
    """
    try:
        return CheckpointHeader.model_validate_json(_metadata(first)["training"])
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"not a training checkpoint of format {CHECKPOINT_FORMAT} ({type(error).__name__})") from None


def only(checkpoint: bytes, keys: Collection[str]) -> bytes | None:
    """The checkpoint of an ended cohort, with the weights of some of its members and nothing of the others.

    For deleting what is not needed once the members' results are recorded: the best model of a study needs the weights
    of one member, the checkpoint holds those of all. A file made before moments were left out loses them here too. A
    training does not go on from what is returned, unless nothing was removed.

    Args:
        checkpoint: a file's content.
        keys: of the members to keep; keys of other cohorts are ignored.

    Returns:
        The new content, to be written in place of the old by `CheckpointFile.write`, which is atomic; None if no
        member is left, so that the file can be deleted.

    Raises:
        ValueError: not a checkpoint, or a damaged one.
    """
    header, tensors = read_checkpoint(checkpoint)
    kept = [position for position in header.kept if header.keys[position] in keys]
    if not kept:
        return None
    rows = [header.kept.index(position) for position in kept]
    left = {
        name: value if name.startswith(HISTORY) else value[rows]
        for name, value in tensors.items()
        if not name.startswith(MOMENTS)
    }
    removed = sorted({*header.removed, *header.kept} - set(kept))
    return write_checkpoint(header.model_copy(update={"kept": kept, "removed": removed, "moments": False}), left)


def _metadata(first: Callable[[int], bytes]) -> dict[str, str]:
    """The metadata of a safetensors file."""
    size = int.from_bytes(first(8), "little")
    if size > _HEADER_LIMIT:
        raise ValueError("too long a header")
    return json.loads(first(8 + size)[8:])["__metadata__"]


def _sha256(header: str, tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256(header.encode())
    for name in sorted(tensors):
        values = tensors[name].numpy()
        digest.update(f"{name} {values.dtype} {values.shape}".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()


class StorageError(Exception):
    """A checkpoint cannot be read or written; the fault of its storage, not of the training."""


class CheckpointFile:
    """The latest checkpoint of one worker's members, replaced atomically.

    Args:
        folder: a URI or local path.
        name: of the file, without its suffix.

    Raises:
        StorageError: by its methods, for any complaint of the file system.
    """

    def __init__(self, folder: str, name: str):
        self._fs, root = located(folder)
        self._path = f"{root}/{name}.safetensors"

    def read(self) -> bytes | None:
        """The content; None if there is no file."""
        try:
            with self._fs.open_input_stream(self._path) as stream:
                return stream.read()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StorageError(str(error)) from error

    def write(self, content: bytes) -> None:
        """Writes or replaces the file."""
        try:
            with appearing(self._fs, self._path) as path, self._fs.open_output_stream(path) as stream:
                stream.write(content)
        except OSError as error:
            raise StorageError(str(error)) from error


def last_saved_ns(folder: str) -> int:
    """When a cohort's latest checkpoint was written, in nanoseconds since 1970; 0 if there is no readable one."""
    system, root = located(folder)
    with contextlib.suppress(OSError):
        infos = system.get_file_info(fs.FileSelector(root, allow_not_found=True))
        return max((info.mtime_ns or 0 for info in infos if info.extension == "safetensors"), default=0)
    return 0
