"""Files on any file system that pyarrow knows: a local folder, or a URI such as s3://bucket/folder."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from pyarrow import fs


def located(place: str) -> tuple[fs.FileSystem, str]:
    """The file system of a URI or local path, and the path within it.

    The query of a URI (after "?") configures the file system, see `pyarrow.fs.FileSystem.from_uri`.

    Raises:
        pyarrow.ArrowInvalid: the URI has an unknown file system.
        OSError: the file system cannot be reached.
    """
    return fs.FileSystem.from_uri(place) if "://" in place else (fs.LocalFileSystem(), str(Path(place).absolute()))


@dataclass(frozen=True)
class Permit:
    """A permission to write that ends when a file changes, such as the lock of a sweep."""

    file: str
    """A URI or local path."""
    content: str

    def holds(self) -> bool:
        """Whether the file still has the content; reads it. Raises OSError if it cannot be read."""
        system, path = located(self.file)
        try:
            with system.open_input_stream(path) as stream:
                return stream.read() == self.content.encode()
        except FileNotFoundError:
            return False


@contextlib.contextmanager
def appearing(system: fs.FileSystem, path: str, *, keep: Callable[[], bool] = lambda: False) -> Iterator[str]:
    """Gives a path for writing, so that the file appears at `path` complete at the end of the context, or not at all.

    On a local file system, a process may be killed while it writes, so the file is written beside `path` and renamed.
    An object appears when its upload is complete, so it is written in place. A missing folder is created.

    Args:
        system: the file system of `path`.
        path: of the file.
        keep: called at the end; if true, an existing local file at `path` is not replaced.
    """
    partial = f"{path}.{uuid4().hex}.partial" if isinstance(system, fs.LocalFileSystem) else path
    try:
        system.create_dir(path.rpartition("/")[0], recursive=True)
        yield partial
        if partial != path and not keep():
            system.move(partial, path)
    finally:
        if partial != path:
            with contextlib.suppress(OSError):  # usually already moved; leftovers would take space
                system.delete_file(partial)
