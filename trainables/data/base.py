"""The contract of data sets, and loading one by its name.

Shapes. N images, C channels (1 or 3), H x W pixels.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from trainables.registry import Registry, UnknownName


class DataError(ValueError):
    """The files of a data set are missing, damaged or of another kind; one line says which file, and what to do."""


@dataclass(frozen=True)
class Images:
    """uint8 images [N, C, H, W] in fixed splits.

    Every choice (a learning rate, an epoch, an estimator) is made on `validation`. `test` is only for the final figures
    of a report; it is None if the source has no test images.

    Raises:
        DataError: a split is empty or not uint8 [N, 1 or 3, H, W], or the splits differ in C, H or W.
    """

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray | None = None

    def __post_init__(self):
        for split, images in self.splits.items():
            if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
                raise DataError(f"{split} images must be uint8 [N, 1 or 3, H, W], got {images.dtype} {images.shape}")
            if images.size == 0:
                raise DataError(f"there are no {split} images: their shape is {images.shape}")
            if images.shape[1:] != self.image_shape:
                raise DataError(
                    f"all images must have the same shape [C, H, W], got {self.image_shape} in the training split "
                    f"and {images.shape[1:]} in the {split} split"
                )

    @property
    def splits(self) -> dict[str, np.ndarray]:
        """The existing splits by name."""
        named = {"train": self.train, "validation": self.validation, "test": self.test}
        return {split: images for split, images in named.items() if images is not None}

    def limited(self, count: int | None) -> "Images":
        """The first `count` images of each split; all for None."""
        return Images(**{split: images[:count] for split, images in self.splits.items()})

    @property
    def image_shape(self) -> tuple[int, int, int]:
        _, channels, height, width = self.train.shape
        return channels, height, width


@dataclass(frozen=True)
class Size:
    """The size of a data set: [C, H, W] of its images, and the number of images in each split."""

    image_shape: tuple[int, int, int]
    train: int
    validation: int
    test: int = 0

    def limited(self, count: int | None) -> "Size":
        """With at most `count` images a split."""
        if count is None:
            return self
        return Size(self.image_shape, *(min(count, size) for size in (self.train, self.validation, self.test)))


def split(parts: Mapping[str, np.ndarray], validation: int | None = None) -> Images:
    """Splits the parts of a source: "train", and optionally "validation" and "test".

    Args:
        parts: uint8 images [N, C, H, W] each.
        validation: the number of training images, the last ones, that become validation images if the source has none;
            None for a tenth of them, rounded down, but at least one.

    Raises:
        DataError: there are too few images, or `Images` refuses them.
    """
    train = parts["train"]
    if "validation" in parts:
        return Images(train, parts["validation"], parts.get("test"))
    size = max(1, len(train) // 10) if validation is None else validation
    if len(train) <= size:
        raise DataError(
            f"{size} training images are kept for validation, but there are only {len(train)}; add more images"
        )
    return Images(train[:-size], train[-size:], parts.get("test"))


Source = Callable[[Path], Images]
"""A function from the data folder to the images of one data set."""


class DataSets(Registry[Source]):
    """Data sets by name; the name KIND:PATH is a user's own images, and `own` has the reader of each kind."""

    def __init__(self):
        super().__init__("data set")
        self.own: Registry[Callable[[str], Source]] = Registry("kind of data")
        self.sizes: dict[str, Size] = {}

    def add(self, name: str, value: Source, size: Size | None = None) -> None:
        """Registers a data set.

        Args:
            name: the data set's name in a configuration.
            value: gives its images.
            size: the size of the complete data set, so that a plan need not read it; None to read it.

        Raises:
            ValueError: the name is taken.
        """
        super().add(name, value)
        if size is not None:
            self.sizes[name] = size

    def __missing__(self, name: str) -> Source:
        kind, _, path = name.partition(":")
        if path and kind in self.own:
            if not path.isprintable():  # tables, figures and MLflow cannot show such a name
                raise UnknownName(f"the path of a data set must be printable, got {name!a}; rename the file")
            return self.own[kind](path)
        try:
            return super().__missing__(name)
        except UnknownName as error:
            kinds = ", ".join(f"{kind}:PATH" for kind in sorted(self.own))
            raise UnknownName(f"{error} Images of your own: {kinds}.") from None


DATASETS = DataSets()


@cache
def load(name: str, data_dir: Path) -> Images:
    """Loads a data set by name, once per process.

    Raises:
        UnknownName: there is no such data set.
        DataError: its files in `data_dir` cannot be used.
    """
    return DATASETS[name](data_dir)
