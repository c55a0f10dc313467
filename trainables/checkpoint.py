"""Checkpoints of cohorts: their format, their files, and the removal of members that are not needed any more.

Shapes. M members with tensors in the checkpoint.

A checkpoint is a safetensors file. Its metadata have a header, the JSON of `CheckpointHeader`, and a checksum. Every
tensor has one row for each member, except the history [epochs, all members]. While a cohort trains, its checkpoint
has weights and the optimizers' moments; once all members have ended, it has only weights, a third of the size.
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

from trainables.filesystem import Permit, appearing, located

CHECKPOINT_FORMAT = 1
HISTORY = "history/"
"""The prefix of the history's tensors."""
MOMENTS = ("mean/", "square/")
"""The prefixes of the optimizers' moments."""
_HEADER_LIMIT = 100_000_000
"""The most bytes of JSON at the beginning of a safetensors file, according to its specification."""
_Position = Annotated[int, Field(ge=0)]


class Dropped(BaseModel):
    """A member dropped from its cohort: the last epoch that it was trained, and the epoch it diverged in, if any."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    epoch: Annotated[int, Field(ge=1)]
    diverged: Annotated[int | None, Field(ge=1)] = None


class CheckpointHeader(BaseModel):
    """The contents of a checkpoint, without its tensors.

    keys: of all members of the cohort.
    kept: the positions in `keys` of the members with tensors in the file, in the order of their rows.
    dropped: members that were dropped from the cohort because they were stopped or diverged, by position.
    removed: the positions of ended members; their tensors were deleted to save space (`only`).
    epoch: the last epoch trained.
    wall_s: seconds that the cohort has trained.
    metrics: names of the history's metrics, in their order.
    moments: whether the file has the optimizers' moments, which are needed only to continue the training.
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
            raise ValueError("every member must be kept, dropped or removed")
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
    """The bytes of a checkpoint with these tensors, which must be on the CPU."""
    text = header.model_dump_json()
    return safetensors.torch.save(tensors, metadata={"training": text, "sha256": _sha256(text, tensors)})


def read_checkpoint(checkpoint: bytes) -> tuple[CheckpointHeader, dict[str, Tensor]]:
    """The header and the tensors of a checkpoint.

    Raises:
        ValueError: this is not a checkpoint of this format, or it is damaged.
    """
    try:
        metadata = _metadata(lambda count: checkpoint[:count])
        header = CheckpointHeader.model_validate_json(metadata["training"])
        tensors = safetensors.torch.load(checkpoint)
        intact = metadata["sha256"] == _sha256(metadata["training"], tensors)
    except (SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"not a training checkpoint of format {CHECKPOINT_FORMAT} ({type(error).__name__})") from None
    if not intact:
        raise ValueError("the checkpoint is damaged: its checksum differs")
    return header, tensors


def read_header(first: Callable[[int], bytes]) -> CheckpointHeader:
    """The header of a checkpoint. Its tensors are not read and its checksum is not checked.

    Args:
        first: gives the first bytes of the file, as many as requested.

    Raises:
        ValueError: this is not a checkpoint of this format.
    """
    try:
        return CheckpointHeader.model_validate_json(_metadata(first)["training"])
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"not a training checkpoint of format {CHECKPOINT_FORMAT} ({type(error).__name__})") from None


def only(checkpoint: bytes, keys: Collection[str]) -> bytes | None:
    """A checkpoint of an ended cohort, reduced to the weights of some members.

    It saves space once the members' results are recorded: a checkpoint has the weights of all members, but the best
    model of a study needs those of one. Moments are removed, too. The training cannot continue from the result if a
    member was removed.

    Args:
        checkpoint: a file's content.
        keys: of the members to keep; keys of other cohorts are ignored.

    Returns:
        The new content, which `CheckpointFile.write` can write atomically; None if no member is left, so that the file
        can be deleted.

    Raises:
        ValueError: this is not a checkpoint, or it is damaged.
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
        raise ValueError("the header is too long")
    return json.loads(first(8 + size)[8:])["__metadata__"]


def _sha256(header: str, tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256(header.encode())
    for name in sorted(tensors):
        values = tensors[name].numpy()
        digest.update(f"{name} {values.dtype} {values.shape}".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()


class StorageError(Exception):
    """A checkpoint cannot be read or written, because of its storage, not of the training."""


class CheckpointFile:
    """The latest checkpoint of one worker's members, replaced atomically.

    Args:
        folder: a URI or local path.
        name: of the file, without its suffix.
        permit: without it nothing is written; None allows every write.

    Raises:
        StorageError: raised by its methods for any error of the file system.
    """

    def __init__(self, folder: str, name: str, permit: Permit | None = None):
        self._permit = permit
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
            with appearing(self._fs, self._path) as path:
                if path == self._path:
                    self._check()  # before the upload, since the object appears when it ends
                with self._fs.open_output_stream(path) as stream:
                    stream.write(content)
                if path != self._path:
                    self._check()  # at the last moment before the file is renamed
        except OSError as error:
            raise StorageError(str(error)) from error

    def _check(self) -> None:
        if self._permit is not None and not self._permit.holds():
            raise StorageError("the run of this training has lost its lock")


def last_saved_ns(folder: str) -> int:
    """The time of a cohort's latest checkpoint, in nanoseconds since 1970; 0 if there is none, or none is readable."""
    system, root = located(folder)
    with contextlib.suppress(OSError):
        infos = system.get_file_info(fs.FileSelector(root, allow_not_found=True))
        return max((info.mtime_ns or 0 for info in infos if info.extension == "safetensors"), default=0)
    return 0
