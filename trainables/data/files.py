"""Data sets that are kept in files: finding, checking, storing and downloading them."""

import hashlib
import http.client
import os
import tarfile
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trainables.data.base import DATASETS, DataError, Images, load, split
from trainables.data.store import stored

_RATIO, _HARMLESS = 1_000, 2**26
"""The ratio of unpacked to packed bytes above which a file is refused, and the unpacked bytes that are always allowed:
even an image of one colour is packed as tightly."""
Parts = Mapping[str, np.ndarray]
"""uint8 images [N, C, H, W] by part of the source: "train", "validation" or "test"."""


class MissingFiles(DataError):
    """A file or folder of a data set does not exist."""


@dataclass(frozen=True)
class Download:
    """The download of a data set's files.

    fetch: downloads them into a folder, with their relative paths in a data folder, and checks md5 sums.
    files: the files to keep, relative to the folder.
    """

    fetch: Callable[[Path], object]
    files: Sequence[str]


@dataclass(frozen=True)
class FileSet:
    """A data set in files. They are read once; later the images are mapped into memory from `data_dir`/arrow (`store`).

    files: gives the paths of all files in a data folder, in a fixed order; raises MissingFiles.
    read: reads the images from these files.
    validation: the number of training images, the last ones, for validation (`base.split`).
    download: how to download the files, if this is possible.
    """

    name: str
    files: Callable[[Path], Sequence[Path]]
    read: Callable[[Sequence[Path]], Parts]
    validation: int | None = None
    download: Download | None = None

    def __call__(self, data_dir: Path) -> Images:
        """The images of the data set.

        Raises:
            DataError: files are missing, damaged or of another kind.
        """
        try:
            files = self.files(data_dir)
        except MissingFiles as error:
            if self.download is None:
                raise
            call = f"trainables.data.download({self.name!r}, {str(data_dir)!r})"
            raise MissingFiles(
                f"{error}; to download it, add --download to the command, or in Python call {call}"
            ) from None

        def read() -> Parts:
            parts = self.read(files)
            split(parts, self.validation)  # raises for images that must not be stored
            return parts

        return split(stored(self.name, files, data_dir / "arrow", read), self.validation)


def existing(folder: Path, names: Sequence[str]) -> list[Path]:
    """The paths of files in a folder.

    Raises:
        MissingFiles: a file does not exist; the message names the first one.
    """
    for name in names:
        if not os.path.isfile(folder / name):
            raise MissingFiles(f"there is no {name} in {folder}")
    return [folder / name for name in names]


def content(path: Path, md5: str | None = None) -> bytes:
    """Reads a file, and checks its md5 sum if one is given.

    Raises:
        DataError: the file cannot be read, or has another md5 sum.
    """
    try:
        found = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    # The check finds damage, it does not stop attackers: no reader here executes code from a file.
    if md5 is not None and (actual := hashlib.md5(found, usedforsecurity=False).hexdigest()) != md5:
        raise DataError(f"{path} is damaged: md5 {actual}, expected {md5}; delete it and download it again")
    return found


def check_unpacked(packed: int, unpacked: int) -> None:
    """Refuses files that fill the memory when they are unpacked; call it before that.

    Raises:
        DataError: the unpacked bytes are more than 1,000 times the packed bytes, and more than 64 MiB.
    """
    if unpacked > max(_RATIO * packed, _HARMLESS):
        raise DataError(
            f"would grow from {packed:,} to {unpacked:,} bytes when unpacked; at most {_RATIO:,} times is accepted"
        )


def download(name: str, data_dir: Path | str) -> Images:
    """Loads a data set like `load`, but first downloads its files if they are missing or damaged.

    The files of a failed or interrupted download are deleted; existing files stay.

    Raises:
        UnknownName: there is no such data set.
        DataError: the data set cannot be downloaded, or the download failed.
    """
    data_dir = Path(data_dir)
    try:
        return load(name, data_dir)
    except DataError:
        source = DATASETS[name]
        if not isinstance(source, FileSet) or source.download is None:
            raise
    try:
        _download(source.download, data_dir)
    # The errors of urllib, http and tarfile, and of torchvision if an md5 sum is wrong or all mirrors failed.
    except (OSError, RuntimeError, http.client.HTTPException, tarfile.TarError, EOFError, MissingFiles) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"the download to {data_dir} failed: {reason}; no file was kept; try again") from None
    return load(name, data_dir)


def _download(wanted: Download, data_dir: Path) -> None:
    data_dir.mkdir(parents=True, exist_ok=True)
    # In the data folder, so that moving the files to their final place is atomic.
    with tempfile.TemporaryDirectory(prefix=".download-", dir=data_dir) as folder:
        wanted.fetch(Path(folder))
        for path in existing(Path(folder), wanted.files):
            target = data_dir / path.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, target)
