"""SVHN: 32x32 colour crops of house numbers (Netzer et al. 2011), from the original .mat files of cropped digits."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from trainables.data.base import DATASETS, Size
from trainables.data.files import Download, FileSet, Parts, content, existing

VALIDATION = 7_257
FILES = {"train": "train_32x32.mat", "test": "test_32x32.mat"}
"""The file of each part; the "extra" images are not used."""
MD5 = {
    "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
    "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
}


def _read(files: Sequence[Path]) -> Parts:
    return {part: _images(path) for part, path in zip(FILES, files, strict=True)}


def _images(path: Path) -> np.ndarray:
    """The images [N, 3, 32, 32] of a .mat file, which stores them as [32, 32, 3, N]."""
    from scipy.io import loadmat

    # No further checks: the md5 sum shows that this is one of two known files.
    return loadmat(io.BytesIO(content(path, MD5[path.name])), variable_names=["X"])["X"].transpose(3, 2, 0, 1)


def _fetch(folder: Path) -> None:
    from torchvision.datasets import SVHN  # takes seconds to import
    from torchvision.datasets.utils import download_url

    for part in FILES:
        url, file, md5 = SVHN.split_list[part]
        download_url(url, folder, file, md5)


svhn = FileSet(
    name="svhn",
    files=lambda data_dir: existing(data_dir, list(FILES.values())),
    read=_read,
    validation=VALIDATION,
    download=Download(_fetch, list(FILES.values())),
)
"""66,000 training, 7,257 validation and 26,032 test images, [N, 3, 32, 32]."""

DATASETS.add(svhn.name, svhn, size=Size((3, 32, 32), 66_000, 7_257, 26_032))
