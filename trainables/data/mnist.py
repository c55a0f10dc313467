"""MNIST: 28x28 handwritten digits (LeCun et al. 1998), from the original idx files, in torchvision's folders."""

import gzip
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from trainables.data.base import DATASETS, DataError, Size
from trainables.data.files import Download, FileSet, MissingFiles, Parts, content

VALIDATION = 10_000
FILES = {"train": ("train-images-idx3-ubyte", 60_000), "test": ("t10k-images-idx3-ubyte", 10_000)}
"""The file of each part, and its number of images."""
MD5 = {
    "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
}
_SIDE = 28


def _files(data_dir: Path) -> list[Path]:
    """The packed or unpacked files in `data_dir`/MNIST/raw."""
    raw = data_dir / "MNIST" / "raw"
    found = []
    for file, _ in FILES.values():
        packed, unpacked = raw / f"{file}.gz", raw / file
        there = [path for path in (packed, unpacked) if os.path.isfile(path)]
        if not there:
            raise MissingFiles(f"there is no {packed.name} in {raw}")
        found.append(there[0])
    return found


def _read(files: Sequence[Path]) -> Parts:
    return {part: _images(path, count) for path, (part, (_, count)) in zip(files, FILES.items(), strict=True)}


def _images(path: Path, count: int) -> np.ndarray:
    """The images [count, 1, 28, 28] of an idx file.

    Raises:
        DataError: the file is damaged, or is not of MNIST.
    """
    idx = content(path, MD5.get(path.name))
    if path.suffix == ".gz":
        idx = gzip.decompress(idx)  # cannot fail: the md5 sum is right
    shape = (count, 1, _SIDE, _SIDE)
    # Magic number (unsigned bytes, three axes) and the size of each axis, big-endian.
    header = np.array([0x00000803, count, _SIDE, _SIDE], dtype=">u4").tobytes()
    if idx[: len(header)] != header:
        raise DataError(f"{path} is not MNIST: its header must give {count:,} images of 28x28 bytes")
    expected = len(header) + int(np.prod(shape))
    if len(idx) != expected:
        raise DataError(
            f"{path} is damaged: {len(idx):,} bytes, expected {expected:,}; delete it and download it again"
        )
    return np.frombuffer(idx, np.uint8, offset=len(header)).reshape(shape)


def _fetch(folder: Path) -> None:
    from torchvision.datasets import MNIST  # takes seconds to import

    MNIST(folder, download=True)


mnist = FileSet(
    name="mnist",
    files=_files,
    read=_read,
    validation=VALIDATION,
    download=Download(_fetch, [f"MNIST/raw/{file}" for file in MD5]),
)
"""50,000 training, 10,000 validation and 10,000 test images, [N, 1, 28, 28]."""

DATASETS.add(mnist.name, mnist, size=Size((1, 28, 28), 50_000, 10_000, 10_000))
