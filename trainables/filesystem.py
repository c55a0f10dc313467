"""Files on any file system that pyarrow knows: a local folder, or a URI such as s3://bucket/folder."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

from pyarrow import fs


def located(place: str) -> tuple[fs.FileSystem, str]:
    """The file system of a URI or local path, and the path within it.

    What follows a question mark in a URI configures the file system, as in `pyarrow.fs.FileSystem.from_uri`.

    Raises:
        pyarrow.ArrowInvalid: the URI is of no known file system.
        OSError: the file system cannot be reached.
    """
    return fs.FileSystem.from_uri(place) if "://" in place else (fs.LocalFileSystem(), str(Path(place).absolute()))


@contextlib.contextmanager
def appearing(system: fs.FileSystem, path: str, *, keep: Callable[[], bool] = lambda: False) -> Iterator[str]:
    """Gives a path to write to, so that the file appears whole at `path` when the context ends, or not at all.

    On a local file system a process can be killed while it writes, so it writes beside `path` and renames the file. An
    object appears when its upload ends, so it is written in place. The folder is made if it is missing.

    Args:
        system: where `path` lies.
        path: of the file.
        keep: asked at the end; if true, a local file that is at `path` already stays.
    """
    partial = f"{path}.{uuid4().hex}.partial" if isinstance(system, fs.LocalFileSystem) else path
    try:
        system.create_dir(path.rpartition("/")[0], recursive=True)
        yield partial
        if partial != path and not keep():
            system.move(partial, path)
    finally:
        if partial != path:
            with contextlib.suppress(OSError):  # moved, usually; a remainder would take space
                system.delete_file(partial)
