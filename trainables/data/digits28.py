"""The digits of scikit-learn in MNIST's size, for trying configurations for MNIST without a download."""

from pathlib import Path

import numpy as np
import torch

from trainables.data.base import DATASETS, Images, Size
from trainables.data.digits import digits

SIDE = 28


def digits28(data_dir: Path) -> Images:
    """`digits`, enlarged to [N, 1, 28, 28] by bilinear interpolation; blurred, and much easier than MNIST."""
    small = digits(data_dir)
    return Images(train=_enlarged(small.train), validation=_enlarged(small.validation))


def _enlarged(images: np.ndarray) -> np.ndarray:
    large = torch.nn.functional.interpolate(torch.from_numpy(images).float(), size=(SIDE, SIDE), mode="bilinear")
    return large.round().to(torch.uint8).numpy()


DATASETS.add("digits28", digits28, size=Size((1, 28, 28), 1_437, 360))
