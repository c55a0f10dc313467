"""folder:PATH, a user's own image files below a folder, all of the same size."""

import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from trainables.data.base import DATASETS, DataError
from trainables.data.files import FileSet, MissingFiles, Parts, check_unpacked

SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""The formats of these suffixes by Pillow's names. Pillow looks at the content, not at the suffix, and would also read
others; for PostScript it starts Ghostscript, which runs the file as a program."""
_GREY, _COLOUR = {"1", "L"}, {"P", "PA", "LA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"}
"""Pillow's modes with at most 8 bits per channel."""


def folder(path: str) -> FileSet:
    """The data set folder:PATH; a relative path starts at the data folder.

    Images are grey [N, 1, H, W] if all files are grey, else in colour [N, 3, H, W]; transparency is dropped. The files
    are sorted by relative path and then permuted in a fixed way, since folders often have a subfolder for each class;
    the last tenth is for validation.
    """

    def files(data_dir: Path) -> Sequence[Path]:
        root = data_dir / path
        if not os.path.isdir(root):
            raise MissingFiles(f"there is no folder {root}")
        named = (file for file in root.rglob("*") if file.suffix.lower() in SUFFIXES and file.name[0] != ".")
        found = [file for file in named if not file.is_dir()]
        if not found:
            raise MissingFiles(
                f"there are no images in {root}; their names must end with one of {' '.join(sorted(SUFFIXES))}"
            )
        return sorted(found, key=lambda file: file.relative_to(root).as_posix())

    return FileSet(f"folder:{path}", files, _read)


def _read(files: Sequence[Path]) -> Parts:
    images: list[np.ndarray] = []
    for path in files:
        image = _decoded(path)
        if image.shape[:2] != (images or [image])[0].shape[:2]:
            (height, width), (first_height, first_width) = image.shape[:2], images[0].shape[:2]
            raise DataError(
                f"{path} is {width}x{height} and {files[0]} is {first_width}x{first_height}; "
                "all must have the same size"
            )
        images.append(image)
    if not all(image.ndim == 2 for image in images):
        images = [image if image.ndim == 3 else np.stack([image] * 3, axis=-1) for image in images]
    order = np.random.default_rng(0).permutation(len(images))
    stacked = np.stack([images[index] for index in order])
    return {"train": stacked[:, None] if stacked.ndim == 3 else stacked.transpose(0, 3, 1, 2)}


def _decoded(path: Path) -> np.ndarray:
    """The pixels of an image file, [H, W] or [H, W, 3].

    Raises:
        DataError: Pillow cannot read the file, it unpacks to too many bytes, or it has another mode than `_GREY` and
            `_COLOUR`.
    """
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path, formats=FORMATS) as image:
            if image.mode not in _GREY | _COLOUR:
                raise DataError(f"has pixels of mode {image.mode!r}; images must have 8 bits per channel")
            check_unpacked(path.stat().st_size, image.width * image.height * len(image.getbands()))
            return np.asarray(image.convert("L" if image.mode in _GREY else "RGB"))
    except DataError as error:
        raise DataError(f"{path} {error}") from None
    # Bytes that are not an image can make Pillow raise any exception.
    except Exception as error:
        reason = " ".join(str(error).split()).removesuffix(f" {str(path)!r}")
        raise DataError(f"{path} cannot be read as an image: {reason or type(error).__name__}") from None


DATASETS.own.add("folder", folder)
