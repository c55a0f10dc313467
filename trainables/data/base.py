"""What a data set must supply."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from trainables.registry import Registry


class DataError(ValueError):
    """The files of a data set are missing or not what they should be; one line says which, and what to do."""


@dataclass(frozen=True)
class Images:
    """uint8 images [N, C, H, W], split once and for all."""

    train: np.ndarray
    validation: np.ndarray

    @property
    def image_shape(self) -> tuple[int, int, int]:
        _, channels, height, width = self.train.shape
        return channels, height, width


DATASETS: Registry[Callable[[Path], Images]] = Registry("data set")


@cache
def load(name: str, data_dir: Path) -> Images:
    """The data set of that name, read once a process.

    Raises:
        UnknownName: no such data set.
        DataError: its files in `data_dir` cannot be used.
    """
    return DATASETS[name](data_dir)
