"""32x32 colour crops of the two photographs that ship inside scikit-learn, a temple and a flower."""

from pathlib import Path

import numpy as np

from trainables.data.base import DATASETS, Images, Size

SIDE, STRIDE = 32, 8
BLOCK = 64
"""The side of a block in pixels. Photographs are cut into blocks, and every crop lies within one block."""


def patches(data_dir: Path) -> Images:
    """2,400 training, 300 validation and 300 test images, [N, 3, 32, 32].

    In each row, one of ten blocks is for validation and one for testing, shifted by three from row to row. So the
    splits cover all regions of the photographs and share no pixel. Crops of one block overlap, so there are only few
    independent images, enough for trying things out. Nothing is read from `data_dir`.
    """
    from sklearn.datasets import load_sample_images  # takes a second, and most commands do not need it

    splits: dict[str, list[np.ndarray]] = {"train": [], "validation": [], "test": []}
    for photograph in load_sample_images().images:
        rows, columns = photograph.shape[0] // BLOCK, photograph.shape[1] // BLOCK
        for row, column in np.ndindex(rows, columns):
            block = photograph[row * BLOCK :, column * BLOCK :][:BLOCK, :BLOCK]
            splits[_split(row, column)].append(_crops(block))
    return Images(**{split: np.concatenate(crops) for split, crops in splits.items()})


def _split(row: int, column: int) -> str:
    return {0: "validation", 5: "test"}.get((3 * row + column) % 10, "train")


def _crops(block: np.ndarray) -> np.ndarray:
    """The crops [25, 3, 32, 32] of a block [64, 64, 3]."""
    windows = np.lib.stride_tricks.sliding_window_view(block, (SIDE, SIDE), axis=(0, 1))[::STRIDE, ::STRIDE]
    return windows.reshape(-1, 3, SIDE, SIDE)


DATASETS.add("patches", patches, size=Size((3, 32, 32), 2_400, 300, 300))
