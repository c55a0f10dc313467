"""Storage of a sweep's files: one folder on any file system that pyarrow knows (local, s3://, gs://, …)."""

import contextlib
import time
from collections.abc import Callable, Generator
from pathlib import Path
from urllib.parse import unquote
from uuid import uuid4

import pyarrow as pa
from pyarrow import fs

from sweeps.errors import UserError, first_line
from sweeps.redact import redact
from trainables.filesystem import appearing, located

_OF_THE_DRIVER = {"ledger", "cohorts", "suggestions", "checkpoints"}
"""Folders written only by the holder of the sweep's lock."""


def joined(uri: str, path: str) -> str:
    """The URI of `path` inside the folder `uri`, which may be a local path. Keeps options after a question mark."""
    place, mark, options = uri.partition("?") if "://" in uri else (uri, "", "")
    return f"{place.rstrip('/')}/{path}{mark}{options}"


def _open() -> None:
    """A fence that permits everything; used until a lock sets its own."""


class Storage:
    """The folder `<uri>/<name>`. Paths are relative to it, with forward slashes; files are written atomically.

    Options after a question mark in the URI configure the file system, as in `pyarrow.fs.FileSystem.from_uri`.

    Raises:
        UserError: the file system of the URI is not known, or the URI contains credentials. The URI is printed and
            passed to other programs, so it must not contain any.
    """

    def __init__(self, uri: str, name: str):
        self.uri, self.name = uri, name
        if any(redact(form) != form for form in (uri, unquote(uri))):
            raise UserError(
                "--storage must not contain credentials; set them in the environment "
                "(AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY for s3://)"
            )
        try:
            base, root = located(uri)
            self.root = f"{root.rstrip('/')}/{name}"
            self._fs = fs.SubTreeFileSystem(self.root, base)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise UserError(f"--storage {uri!r} cannot be used: {first_line(error)}") from None
        self.local = isinstance(base, fs.LocalFileSystem)
        self._base = base
        self.fence: Callable[[], None] = _open
        """Called before each change; raises UserError to prevent it. Set by the sweep's lock."""
        self.check: Callable[[], None] = _open
        """Raises UserError if `fence` is already known to fail; reads no file."""

    @property
    def full_uri(self) -> str:
        """The folder's absolute path if local, else its URI; for other programs."""
        return self.root if self.local else joined(self.uri, self.name)

    @property
    def region(self) -> str | None:
        """The region of the bucket; None if the storage is not on S3."""
        return self._base.region if isinstance(self._base, fs.S3FileSystem) else None

    @property
    def local_path(self) -> Path:
        """The folder as a local path; valid only if `local`."""
        return Path(self.root)

    def exists(self) -> bool:
        """Whether anything has been stored; raises UserError as `read`."""
        with self._readable():
            return self._base.get_file_info(self.root).type == fs.FileType.Directory

    def derived(self) -> list[str]:
        """Sorted names of sweeps beside this one that were derived from it; raises UserError as `read`."""
        selector = fs.FileSelector(self.root.rpartition("/")[0], allow_not_found=True)
        with self._readable():
            infos = self._base.get_file_info(selector)
        folders = (info.base_name for info in infos if info.type == fs.FileType.Directory)
        return sorted(name for name in folders if name.startswith(f"{self.name}-"))

    @contextlib.contextmanager
    def _readable(self) -> Generator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except (pa.ArrowException, OSError) as error:
            raise self.unusable("read", error) from None

    @contextlib.contextmanager
    def _writable(self) -> Generator[None, None, None]:
        try:
            yield
        except (pa.ArrowException, OSError) as error:
            raise self.unusable("write to", error) from None

    def unusable(self, do: str, error: Exception) -> UserError:
        """The message to the user for an error of the file system."""
        remote = "check that the bucket exists, and that the credentials or the machine's role are valid"
        advice = "check its permissions and free space" if self.local else remote
        return UserError(f"cannot {do} --storage {self.uri!r}: {first_line(error)}; {advice}")

    def prepare(self) -> None:
        """Makes the folder and checks that it can be written.

        Raises:
            UserError: the folder cannot be written.
        """
        probe = f".probe-{uuid4().hex}"
        self.write(probe, bytes(4096))  # a full disk may still take an empty file
        self.delete(probe)

    def write(self, path: str, content: bytes) -> None:
        """Writes a file atomically.

        Raises:
            UserError: the file cannot be written (for example, no space or no permission), or `fence` forbids it.
        """
        try:
            with appearing(self._base, f"{self.root}/{path}") as place:
                if not self.local:
                    self.fence()  # before the upload, since the object appears when it ends
                self._put(place, content)
                if self.local:
                    self.fence()  # at the last moment before the file is renamed
        except (pa.ArrowException, OSError) as error:
            raise self.unusable("write to", error) from None

    def modified_s(self, path: str) -> float:
        """When a file was written, in seconds since 1970 by the storage's own clock.

        Raises:
            FileNotFoundError: there is no such file.
            UserError: as `read`.
        """
        with self._readable():
            modified_ns = self._fs.get_file_info(path).mtime_ns
        if modified_ns is None:
            raise FileNotFoundError(path)
        return modified_ns / 1e9

    def _put(self, path: str, content: bytes) -> None:
        with self._base.open_output_stream(path) as stream:
            stream.write(content)

    def read(self, path: str, size: int | None = None) -> bytes:
        """The content of a file, or its first `size` bytes.

        Raises:
            FileNotFoundError: there is no such file.
            UserError: the file cannot be read (for example, no permission or no connection).
        """
        with self._readable(), self._fs.open_input_stream(path) as stream:
            return stream.read(size)

    def fetch(self, folder: str, target: Path) -> None:
        """Copies a folder and its subfolders into a local folder; raises as `read`."""
        with self._readable():
            fs.copy_files(folder, str(target), source_filesystem=self._fs, destination_filesystem=fs.LocalFileSystem())

    def move(self, path: str, target: str) -> None:
        """Renames a file; raises UserError as `write`."""
        self.fence()
        folder = target.rpartition("/")[0]
        with self._writable():
            if folder:
                self._fs.create_dir(folder, recursive=True)
            self._fs.move(path, target)

    def delete(self, path: str) -> None:
        """Deletes a file, if it is there; raises UserError as `write`."""
        self.fence()
        with self._writable(), contextlib.suppress(FileNotFoundError):
            self._fs.delete_file(path)

    def delete_leftovers(self) -> None:
        """Deletes unfinished files of killed processes; call only with the sweep's lock held.

        Outside the driver's own folders other processes may be writing (a report, a start that the lock will refuse),
        so there a file is deleted only after an hour.
        """
        if not self.local:
            return  # objects appear whole
        root = self.local_path
        for path in (*root.rglob("*.partial"), *root.glob(".probe-*")):
            left = path.relative_to(root).parts[0] in _OF_THE_DRIVER
            with contextlib.suppress(OSError):  # gone meanwhile, or cannot be deleted, which does no harm
                if left or time.time() - path.stat().st_mtime > 3600:
                    path.unlink()

    def list(self, folder: str, suffix: str, recursive: bool = False) -> list[str]:
        """Sorted paths of the files with this suffix in a folder; empty if there is no such folder.

        Raises UserError as `read`.
        """
        selector = fs.FileSelector(folder, allow_not_found=True, recursive=recursive)
        with self._readable():
            infos = self._fs.get_file_info(selector)
        return sorted(info.path for info in infos if info.type == fs.FileType.File and info.base_name.endswith(suffix))
