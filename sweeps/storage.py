"""Where a sweep keeps its files: one folder of any file system that pyarrow knows (local, s3://, gs://, …)."""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pyarrow as pa
from pyarrow import fs

from sweeps.errors import UserError, first_line


class Storage:
    """The folder `<uri>/<name>`. Paths are relative to it, with forward slashes; files appear whole or not at all.

    Raises:
        UserError: the URI is not one of a known file system, or the folder cannot be made or written.
    """

    def __init__(self, uri: str, name: str):
        self.uri, self.name = uri, name
        try:
            base, root = (
                fs.FileSystem.from_uri(uri) if "://" in uri else (fs.LocalFileSystem(), str(Path(uri).absolute()))
            )
        except (pa.ArrowException, OSError, ValueError) as error:
            raise UserError(f"--storage {uri!r} cannot be used: {first_line(error)}") from None
        self.local = isinstance(base, fs.LocalFileSystem)
        self.root = f"{root.rstrip('/')}/{name}"
        self._base = base
        self._fs = fs.SubTreeFileSystem(self.root, base)

    @property
    def full_uri(self) -> str:
        """A URI or absolute path of the folder, for other programs."""
        return self.root if self.local else f"{self.uri.rstrip('/')}/{self.name}"

    @property
    def local_path(self) -> Path:
        """The folder as a local path; only where `local`."""
        return Path(self.root)

    def exists(self) -> bool:
        """Whether anything has been stored."""
        return self._base.get_file_info(self.root).type == fs.FileType.Directory

    def prepare(self) -> None:
        """Makes the folder and proves that it can be written.

        Raises:
            UserError: it cannot.
        """
        probe = f".probe-{uuid4().hex}"
        self.write(probe, bytes(4096))  # a full disk may still take an empty file
        self._fs.delete_file(probe)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other processes out of a local folder, until this one leaves the context or ends, however it ends.

        Raises:
            UserError: another process is in it.
        """
        with contextlib.ExitStack() as stack:
            if self.local:
                lock = stack.enter_context((self.local_path / ".lock").open("w"))
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise UserError(
                        f"sweep {self.name!r} is being run in {self.uri!r} already; wait for that run to end, or use "
                        "another --storage"
                    ) from None
            yield

    def write(self, path: str, content: bytes) -> None:
        """Writes a file atomically.

        Raises:
            UserError: it cannot be written, for want of space or of permission.
        """
        try:
            self._base.create_dir(f"{self.root}/{path}".rpartition("/")[0], recursive=True)
            if self.local:
                # Beside its place first, since a process can be killed while it writes; an object needs no such care,
                # it appears when its upload ends.
                partial = f"{path}.{uuid4().hex}.partial"
                try:
                    self._put(partial, content)
                    self._fs.move(partial, path)
                except BaseException:
                    self.delete(partial)
                    raise
            else:
                self._put(path, content)
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"cannot write to --storage {self.uri!r}: {first_line(error)}") from None

    def _put(self, path: str, content: bytes) -> None:
        with self._fs.open_output_stream(path) as stream:
            stream.write(content)

    def read(self, path: str) -> bytes:
        """The content of a file; raises FileNotFoundError."""
        with self._fs.open_input_stream(path) as stream:
            return stream.read()

    def move(self, path: str, target: str) -> None:
        """Renames a file."""
        folder = target.rpartition("/")[0]
        if folder:
            self._fs.create_dir(folder, recursive=True)
        self._fs.move(path, target)

    def delete(self, path: str) -> None:
        """Deletes a file, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            self._fs.delete_file(path)

    def list(self, folder: str, suffix: str) -> list[str]:
        """The sorted paths of the files of a folder with that suffix; empty where there is no such folder."""
        selector = fs.FileSelector(folder, allow_not_found=True)
        return sorted(
            f"{folder}/{info.base_name}"
            for info in self._fs.get_file_info(selector)
            if info.type == fs.FileType.File and info.base_name.endswith(suffix)
        )
