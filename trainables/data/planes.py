"""The layout of CIFAR-10 and of Downsampled ImageNet: an image is a row, its colours are planes."""

from pathlib import Path

import numpy as np

from trainables.data.base import DataError

SHAPE = (3, 32, 32)


def planes_to_images(path: Path, rows: np.ndarray) -> np.ndarray:
    """Images [N, 3, 32, 32] of rows [N, 3072]: 1,024 red values, as many green, as many blue.

    Args:
        path: of the file that they come from, for messages.
        rows: uint8.

    Raises:
        DataError: rows of another size.
    """
    if rows.ndim != 2 or rows.shape[1] != np.prod(SHAPE):
        raise DataError(f"{path}: images are rows of 3,072 bytes, got an array {list(rows.shape)}")
    return rows.reshape(-1, *SHAPE)
