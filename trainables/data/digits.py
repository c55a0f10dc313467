"""The 1,797 handwritten 8x8 digits that ship inside scikit-learn (UCI Optical Recognition of Handwritten Digits)."""

from pathlib import Path

import numpy as np

from trainables.data.base import DATASETS, Images, Size

VALIDATION = 360


def digits(data_dir: Path) -> Images:
    """1,437 training and 360 validation images, [N, 1, 8, 8], split by a fixed permutation.

    The 17 grey levels are scaled to 0..255, so that bits per dimension (8 bits per pixel) mean the same for all data
    sets. Nothing is read from `data_dir`.
    """
    from sklearn.datasets import load_digits  # takes a second, and most commands do not need it

    pixels, _ = load_digits(return_X_y=True)
    levels = np.asarray(pixels).reshape(-1, 8, 8)
    images = np.round(levels * (255 / 16)).astype(np.uint8)[:, None]
    order = np.random.default_rng(0).permutation(len(images))
    return Images(train=images[order[VALIDATION:]], validation=images[order[:VALIDATION]])


DATASETS.add("digits", digits, size=Size((1, 8, 8), 1_437, 360))
