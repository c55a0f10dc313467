"""Where a sweep keeps its files: one folder of any file system that pyarrow knows (local, s3://, gs://, …)."""

import contextlib
import re
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pyarrow as pa
from pyarrow import fs

from sweeps.errors import UserError, first_line

_CREDENTIALS = re.compile(
    r"^s3://[^/?]*[:@]|^[^/]*://[^/?]*:[^/?]*@|[?&][^=&]*(secret|token|password|key)[^=&]*=", re.IGNORECASE
)

_OF_THE_DRIVER = {"ledger", "cohorts", "suggestions", "checkpoints"}
"""Folders that nobody writes into who does not hold the sweep's lock."""


def joined(uri: str, path: str) -> str:
    """The URI of what lies in a folder; `uri` may be a local path. Its options, after a question mark, stay."""
    place, mark, options = uri.partition("?") if "://" in uri else (uri, "", "")
    return f"{place.rstrip('/')}/{path}{mark}{options}"


class Storage:
    """The folder `<uri>/<name>`. Paths are relative to it, with forward slashes; files appear whole or not at all.

    What follows a question mark in the URI configures the file system, as `pyarrow.fs.FileSystem.from_uri` has it.

    Raises:
        UserError: the URI is not one of a known file system, or carries credentials: it is shown, and handed to other
            programs, where those have no place.
    """

    def __init__(self, uri: str, name: str):
        self.uri, self.name = uri, name
        if _CREDENTIALS.search(uri):
            raise UserError(
                "--storage: a URI with credentials is not accepted; give them in the environment "
                "(AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY for s3://)"
            )
        try:
            base, root = (
                fs.FileSystem.from_uri(uri) if "://" in uri else (fs.LocalFileSystem(), str(Path(uri).absolute()))
            )
            self.root = f"{root.rstrip('/')}/{name}"
            self._fs = fs.SubTreeFileSystem(self.root, base)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise UserError(f"--storage {uri!r} cannot be used: {first_line(error)}") from None
        self.local = isinstance(base, fs.LocalFileSystem)
        self._base = base

    @property
    def full_uri(self) -> str:
        """A URI or absolute path of the folder, for other programs."""
        return self.root if self.local else joined(self.uri, self.name)

    @property
    def local_path(self) -> Path:
        """The folder as a local path; only where `local`."""
        return Path(self.root)

    def exists(self) -> bool:
        """Whether anything has been stored; raises UserError as `read`."""
        with self._readable():
            return self._base.get_file_info(self.root).type == fs.FileType.Directory

    def derived(self) -> list[str]:
        """The sorted names of sweeps in the same place that were derived from this one; raises UserError as `read`."""
        selector = fs.FileSelector(self.root.rpartition("/")[0], allow_not_found=True)
        with self._readable():
            infos = self._base.get_file_info(selector)
        folders = (info.base_name for info in infos if info.type == fs.FileType.Directory)
        return sorted(name for name in folders if name.startswith(f"{self.name}-"))

    @contextlib.contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except (pa.ArrowException, OSError) as error:
            raise self._unusable("read", error) from None

    def _unusable(self, do: str, error: Exception) -> UserError:
        asked = "is the bucket there, and do the credentials in the environment, or the machine's role, still hold?"
        advice = "" if self.local else f"; {asked}"
        return UserError(f"cannot {do} --storage {self.uri!r}: {first_line(error)}{advice}")

    def prepare(self) -> None:
        """Makes the folder and proves that it can be written.

        Raises:
            UserError: it cannot.
        """
        probe = f".probe-{uuid4().hex}"
        self.write(probe, bytes(4096))  # a full disk may still take an empty file
        self.delete(probe)

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
            raise self._unusable("write to", error) from None

    def create(self, path: str, content: bytes) -> bool:
        """Writes a file where there is none, and says whether it did; exclusive where the file system is local.

        Raises:
            UserError: it cannot be written.
        """
        if not self.local:
            absent = self._fs.get_file_info(path).type == fs.FileType.NotFound
            if absent:
                self.write(path, content)
            return absent
        try:
            with (self.local_path / path).open("xb") as file:
                file.write(content)
        except FileExistsError:
            return False
        except OSError as error:
            raise self._unusable("write to", error) from None
        return True

    def written_s(self, path: str) -> float:
        """When a file was written, in seconds since 1970 by the storage's own clock.

        Raises:
            FileNotFoundError: there is no such file.
            UserError: as `read`.
        """
        with self._readable():
            written_ns = self._fs.get_file_info(path).mtime_ns
        if written_ns is None:
            raise FileNotFoundError(path)
        return written_ns / 1e9

    def age_s(self, path: str) -> float:
        """How long ago a file was written, in seconds by the storage's own clock: those of two hosts may differ.

        Raises:
            FileNotFoundError: there is no such file.
            UserError: the storage cannot be written, which tells its time.
        """
        written_s = self.written_s(path)
        probe = f".probe-{uuid4().hex}"
        self.write(probe, b"now")
        now_s = self.written_s(probe)
        self._fs.delete_file(probe)
        return now_s - written_s

    def _put(self, path: str, content: bytes) -> None:
        with self._fs.open_output_stream(path) as stream:
            stream.write(content)

    def read(self, path: str, size: int | None = None) -> bytes:
        """The content of a file, or its first `size` bytes.

        Raises:
            FileNotFoundError: there is no such file.
            UserError: it cannot be read, for want of permission or of a connection.
        """
        with self._readable(), self._fs.open_input_stream(path) as stream:
            return stream.read(size)

    def fetch(self, folder: str, target: Path) -> None:
        """Copies a folder, with what lies below it, into a local one; raises as `read`."""
        with self._readable():
            fs.copy_files(folder, str(target), source_filesystem=self._fs, destination_filesystem=fs.LocalFileSystem())

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

    def delete_leftovers(self) -> None:
        """Deletes what killed processes did not live to finish; for the holder of the sweep's lock.

        Where others write as well, who make a report or are about to be refused, a file counts as left after an hour.
        """
        if not self.local:
            return  # objects appear whole
        root = self.local_path
        for path in (*root.rglob("*.partial"), *root.glob(".probe-*")):
            left = path.relative_to(root).parts[0] in _OF_THE_DRIVER
            with contextlib.suppress(OSError):  # gone meanwhile; and one that stays does no harm
                if left or time.time() - path.stat().st_mtime > 3600:
                    path.unlink()

    def list(self, folder: str, suffix: str, recursive: bool = False) -> list[str]:
        """The sorted paths of the files of a folder with that suffix; empty where there is no such folder.

        Raises UserError as `read`.
        """
        selector = fs.FileSelector(folder, allow_not_found=True, recursive=recursive)
        with self._readable():
            infos = self._fs.get_file_info(selector)
        return sorted(info.path for info in infos if info.type == fs.FileType.File and info.base_name.endswith(suffix))
