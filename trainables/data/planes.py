"""The layout of CIFAR-10 and Downsampled ImageNet: each image is a row of three planes, one per colour."""

from pathlib import Path

import numpy as np

from trainables.data.base import DataError

SHAPE = (3, 32, 32)


def planes_to_images(path: Path, rows: np.ndarray) -> np.ndarray:
    """Images [N, 3, 32, 32] from rows [N, 3072]: 1,024 red, 1,024 green and 1,024 blue values.

    Args:
        path: of the file with these rows, for messages.
        rows: uint8.

    Raises:
        DataError: the rows have another size.
    """
    if rows.ndim != 2 or rows.shape[1] != np.prod(SHAPE):
        raise DataError(f"{path}: images are rows of 3,072 bytes, got an array {list(rows.shape)}")
    return rows.reshape(-1, *SHAPE)
