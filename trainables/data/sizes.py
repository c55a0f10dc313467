"""The number and shape of a data set's images, known without its files where the data set states them."""

from pathlib import Path

from trainables.data.base import DATASETS, Size, load

__all__ = ["Size", "size_of"]


def size_of(name: str, data_dir: Path) -> Size:
    """The size of a data set. A user's own images are read to find it.

    Raises:
        UnknownName: there is no such data set.
        DataError: the size is not known without the files, and they cannot be used.
    """
    if name in DATASETS.sizes:
        return DATASETS.sizes[name]
    images = load(name, data_dir)
    test = 0 if images.test is None else len(images.test)
    return Size(images.image_shape, len(images.train), len(images.validation), test)
