"""Files of checkpoints: where they lie, and how they are read and replaced. Needs no Ray."""

import contextlib
import os

from pyarrow import fs


class StorageError(Exception):
    """A checkpoint cannot be read or written, which is the fault of where it lies and not of the training."""


class CheckpointFile:
    """The latest checkpoint of one worker's members, replaced atomically.

    Raises:
        StorageError: on reading and writing, for whatever the file system complains of.
    """

    def __init__(self, folder: str, name: str):
        self._fs, root = fs.FileSystem.from_uri(folder) if "://" in folder else (fs.LocalFileSystem(), folder)
        self._root, self._path = root, f"{root}/{name}.safetensors"

    def read(self) -> bytes | None:
        """Its content, if there is one."""
        try:
            with self._fs.open_input_stream(self._path) as stream:
                return stream.read()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StorageError(str(error)) from error

    def write(self, content: bytes) -> None:
        # Named by its process: one whose driver was killed may be writing still when another takes its place.
        partial = f"{self._path}.{os.getpid()}.partial" if isinstance(self._fs, fs.LocalFileSystem) else self._path
        try:
            self._fs.create_dir(self._root, recursive=True)
            with self._fs.open_output_stream(partial) as stream:
                stream.write(content)
            if partial != self._path:
                self._fs.move(partial, self._path)
        except OSError as error:
            if partial != self._path:
                with contextlib.suppress(OSError):  # what is left of it would take the space that is missing
                    self._fs.delete_file(partial)
            raise StorageError(str(error)) from error


def last_saved_ns(folder: str) -> int:
    """When a cohort's latest checkpoint was written, in nanoseconds since 1970; 0 if there is none to be read."""
    system, root = fs.FileSystem.from_uri(folder) if "://" in folder else (fs.LocalFileSystem(), folder)
    with contextlib.suppress(OSError):
        found = system.get_file_info(fs.FileSelector(root, allow_not_found=True))
        return max((info.mtime_ns or 0 for info in found if info.extension == "safetensors"), default=0)
    return 0
