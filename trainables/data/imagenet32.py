"""Downsampled ImageNet at 32x32 (Chrabaszcz et al. 2017), from the original files, as npz or as pickles."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from trainables.data.base import DATASETS, DataError, Size
from trainables.data.files import FileSet, MissingFiles, Parts, content, existing
from trainables.data.npz import npz_arrays
from trainables.data.planes import SHAPE, planes_to_images
from trainables.data.unpickle import pickled_images

VALIDATION = 50_000
COUNTS = {"train": 1_281_167, "test": 50_000}
FOLDER = "imagenet32"
FILES = (*(f"train_data_batch_{number}" for number in range(1, 11)), "val_data")


def _files(data_dir: Path) -> Sequence[Path]:
    folder = data_dir / FOLDER
    archives = [f"{file}.npz" for file in FILES]
    for names in (archives, FILES):
        if os.path.isfile(folder / names[0]):
            return existing(folder, names)
    raise MissingFiles(
        f"there is no {archives[0]} in {folder}; ImageNet's terms ask you to get it yourself: on image-net.org, "
        "downsampled images at 32x32, train and val; put train_data_batch_1.npz to train_data_batch_10.npz and "
        "val_data.npz there, or the same files without .npz"
    )


def _read(files: Sequence[Path]) -> Parts:
    return {"train": _images(files[:-1], COUNTS["train"]), "test": _images(files[-1:], COUNTS["test"])}


def _images(files: Sequence[Path], count: int) -> np.ndarray:
    """The images [count, 3, 32, 32] of some batches; written into one array, since two copies would take 7.9 GB."""
    images, filled = np.empty((count, *SHAPE), np.uint8), 0
    for path in files:
        batch = planes_to_images(path, _rows(path))
        fits = images[filled : filled + len(batch)]
        fits[:] = batch[: len(fits)]
        filled += len(batch)
    if filled != count:
        names = " to ".join(dict.fromkeys([files[0].name, files[-1].name]))
        raise DataError(f"{names} in {files[0].parent} hold {filled:,} images, Downsampled ImageNet has {count:,}")
    return images


def _rows(path: Path) -> np.ndarray:
    return npz_arrays(path, ["data"])["data"] if path.suffix == ".npz" else pickled_images(path, content(path))


imagenet32 = FileSet(name="imagenet32", files=_files, read=_read, validation=VALIDATION)
"""1,231,167 training, 50,000 validation and 50,000 test images; the test images are ImageNet's own validation set."""

DATASETS.add(imagenet32.name, imagenet32, size=Size((3, 32, 32), 1_231_167, 50_000, 50_000))
