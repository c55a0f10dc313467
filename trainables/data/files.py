"""Data sets that are kept in files, and what they share: finding, checking, storing and downloading them."""

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

Parts = Mapping[str, np.ndarray]
"""uint8 images [N, C, H, W] by the part of the source that they are in: "train", "validation", "test"."""


class MissingFiles(DataError):
    """Some file of a data set is not there."""


@dataclass(frozen=True)
class Download:
    """How to get the files of a data set.

    fetch: puts them below a folder, at their place in a data folder; torchvision's functions, which check md5 sums.
    files: those of them to keep, relative to the folder.
    """

    fetch: Callable[[Path], object]
    files: Sequence[str]


@dataclass(frozen=True)
class FileSet:
    """A data set in files: read once, from then on mapped into memory from `data_dir`/arrow (`store`).

    files: all files that are read, in a fixed order, given the data folder; raises MissingFiles.
    read: the images in these files.
    validation: how many of the last training images are for validation (`base.split`).
    """

    name: str
    files: Callable[[Path], Sequence[Path]]
    read: Callable[[Sequence[Path]], Parts]
    validation: int | None = None
    download: Download | None = None

    def __call__(self, data_dir: Path) -> Images:
        """The images.

        Raises:
            DataError: files are missing or not what they should be.
        """
        try:
            files = self.files(data_dir)
        except MissingFiles as error:
            if self.download is None:
                raise
            call = f"trainables.data.download({self.name!r}, {str(data_dir)!r})"
            raise MissingFiles(f"{error}; the same command with --download gets it, in Python {call}") from None

        def read() -> Parts:
            parts = self.read(files)
            split(parts, self.validation)  # what is refused is not stored either
            return parts

        return split(stored(self.name, files, data_dir / "arrow", read), self.validation)


def existing(folder: Path, names: Sequence[str]) -> list[Path]:
    """Paths of files in a folder, all of which must be there.

    Raises:
        MissingFiles: the first that is not.
    """
    for name in names:
        if not os.path.isfile(folder / name):
            raise MissingFiles(f"there is no {name} in {folder}")
    return [folder / name for name in names]


def content(path: Path, md5: str | None = None) -> bytes:
    """What is in a file, after a check of its md5 sum where one is given.

    Raises:
        DataError: it cannot be read, or has another sum.
    """
    try:
        found = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    # Against damage, not against an attacker: no reader here executes what a file says.
    if md5 is not None and (actual := hashlib.md5(found, usedforsecurity=False).hexdigest()) != md5:
        raise DataError(f"{path} is damaged: md5 {actual}, expected {md5}; delete it and get it anew")
    return found


def download(name: str, data_dir: Path | str) -> Images:
    """As `load`, but gets the files first where they are missing or damaged.

    The files of a download that fails or is cut short are thrown away; those that were there stay.

    Raises:
        UnknownName: no such data set.
        DataError: it is not to be had this way, or the download failed.
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
    # What urllib, http and tarfile raise, and torchvision for a wrong md5 sum or where every mirror has failed.
    except (OSError, RuntimeError, http.client.HTTPException, tarfile.TarError, EOFError, MissingFiles) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"the download to {data_dir} failed: {reason}; nothing of it was kept") from None
    return load(name, data_dir)


def _download(wanted: Download, data_dir: Path) -> None:
    data_dir.mkdir(parents=True, exist_ok=True)
    # Beside their final place, so that moving them there is atomic.
    with tempfile.TemporaryDirectory(prefix=".download-", dir=data_dir) as folder:
        wanted.fetch(Path(folder))
        for path in existing(Path(folder), wanted.files):
            target = data_dir / path.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, target)
