"""CIFAR-10: 32x32 colour photographs of ten kinds of things (Krizhevsky 2009), from the original pickled batches."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from trainables.data.base import DATASETS, Size
from trainables.data.files import Download, FileSet, Parts, content, existing
from trainables.data.planes import planes_to_images
from trainables.data.unpickle import pickled_images

VALIDATION = 5_000
FOLDER = "cifar-10-batches-py"
MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}
"""The md5 sums of the files: five batches of training images, in order, and the test images; 10,000 images each."""


def _read(files: Sequence[Path]) -> Parts:
    batches = [planes_to_images(path, pickled_images(path, content(path, MD5[path.name]))) for path in files]
    return {"train": np.concatenate(batches[:-1]), "test": batches[-1]}


def _fetch(folder: Path) -> None:
    from torchvision.datasets import CIFAR10  # takes seconds to import
    from torchvision.datasets.utils import download_and_extract_archive

    # The same as CIFAR10(download=True), but without unpickling.
    download_and_extract_archive(CIFAR10.url, folder, filename=CIFAR10.filename, md5=CIFAR10.tgz_md5)


cifar10 = FileSet(
    name="cifar10",
    files=lambda data_dir: existing(data_dir / FOLDER, list(MD5)),
    read=_read,
    validation=VALIDATION,
    download=Download(_fetch, [f"{FOLDER}/{file}" for file in MD5]),
)
"""45,000 training, 5,000 validation and 10,000 test images, [N, 3, 32, 32]."""

DATASETS.add(cifar10.name, cifar10, size=Size((3, 32, 32), 45_000, 5_000, 10_000))
