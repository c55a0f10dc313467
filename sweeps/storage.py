"""Where a sweep keeps its files: one folder of any file system that pyarrow knows (local, s3://, gs://, …)."""

from pathlib import Path
from uuid import uuid4

import pyarrow as pa
from pyarrow import fs

from sweeps.errors import UserError


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
            raise UserError(f"--storage {uri!r} cannot be used: {_first_line(error)}") from None
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
        try:
            self._base.create_dir(self.root, recursive=True)
            self.write(probe, b"")
            self._fs.delete_file(probe)
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"cannot write to --storage {self.uri!r}: {_first_line(error)}") from None

    def write(self, path: str, content: bytes) -> None:
        """Writes a file atomically."""
        folder = path.rpartition("/")[0]
        if folder:
            self._fs.create_dir(folder, recursive=True)
        # A local file is written beside its place and moved there; an object appears when its upload ends.
        target = f"{path}.{uuid4().hex}.partial" if self.local else path
        with self._fs.open_output_stream(target) as stream:
            stream.write(content)
        if target != path:
            self._fs.move(target, path)

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
        """Deletes a folder, if it is there."""
        if self._fs.get_file_info(path).type == fs.FileType.Directory:
            self._fs.delete_dir(path)

    def list(self, folder: str, suffix: str) -> list[str]:
        """The sorted paths of the files of a folder with that suffix; empty where there is no such folder."""
        selector = fs.FileSelector(folder, allow_not_found=True)
        return sorted(
            f"{folder}/{info.base_name}"
            for info in self._fs.get_file_info(selector)
            if info.type == fs.FileType.File and info.base_name.endswith(suffix)
        )


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
