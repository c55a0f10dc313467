"""Checkpoint files: where they lie, and how they are read and replaced. Needs no Ray."""

import contextlib

from pyarrow import fs

from trainables.filesystem import appearing, located


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
