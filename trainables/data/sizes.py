"""The number and shape of a data set's images, known without its files."""

from dataclasses import dataclass
from pathlib import Path

from trainables.data.base import load


@dataclass(frozen=True)
class Size:
    """The size of a data set: the shape [C, H, W] of its images, and their number in each split."""

    image_shape: tuple[int, int, int]
    train: int
    validation: int
    test: int = 0

    def limited(self, count: int | None) -> "Size":
        """The size with at most `count` images per split."""
        if count is None:
            return self
        return Size(self.image_shape, *(min(count, size) for size in (self.train, self.validation, self.test)))


SIZES = {
    "digits": Size((1, 8, 8), 1_437, 360),
    "digits28": Size((1, 28, 28), 1_437, 360),
    "patches": Size((3, 32, 32), 2_400, 300, 300),
    "mnist": Size((1, 28, 28), 50_000, 10_000, 10_000),
    "cifar10": Size((3, 32, 32), 45_000, 5_000, 10_000),
    "svhn": Size((3, 32, 32), 66_000, 7_257, 26_032),
    "imagenet32": Size((3, 32, 32), 1_231_167, 50_000, 50_000),
}


def size_of(name: str, data_dir: Path) -> Size:
    """The size of a data set. A user's own images are read to find it.

    Raises:
        UnknownName: there is no such data set.
        DataError: the size is not known without the files, and they cannot be used.
    """
    if name in SIZES:
        return SIZES[name]
    images = load(name, data_dir)
    test = 0 if images.test is None else len(images.test)
    return Size(images.image_shape, len(images.train), len(images.validation), test)
