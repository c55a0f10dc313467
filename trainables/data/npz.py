"""npz:PATH, a user's own images in a numpy archive: `train_images`, optional `validation_images`, `test_images`."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.lib.npyio import NpzFile

from trainables.data.base import DATASETS, DataError
from trainables.data.files import FileSet, Parts, check_unpacked, existing

KEYS = {"train": "train_images", "validation": "validation_images", "test": "test_images"}


def npz(path: str) -> FileSet:
    """The data set npz:PATH; a relative path starts at the data folder.

    Every array is uint8, [N, H, W] or [N, H, W, C] with C = 1 or 3; other arrays in the archive are ignored. Without
    `validation_images`, the last tenth of `train_images` is for validation.
    """

    def files(data_dir: Path) -> Sequence[Path]:
        file = data_dir / path
        return existing(file.parent, [file.name])

    return FileSet(f"npz:{path}", files, _read)


def npz_arrays(path: Path, required: Iterable[str], optional: Iterable[str] = ()) -> dict[str, np.ndarray]:
    """The uint8 arrays of a numpy archive by their keys; nothing is unpickled.

    Raises:
        DataError: the file is not such an archive, a required array is missing, or an array is not uint8 or unpacks to
            too many bytes.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            names = list(archive)  # the file may hold an array instead of an archive
            if missing := [key for key in required if key not in names]:
                raise DataError(f"has no {missing[0]!r}; it has {', '.join(map(repr, names)) or 'nothing'}")
            wanted = [key for key in [*required, *optional] if key in names]
            if isinstance(archive, NpzFile):
                _check_unpacked(path, archive, wanted)
            arrays = {key: archive[key] for key in wanted}
        for key, array in arrays.items():
            if not isinstance(array, np.ndarray) or array.dtype != np.uint8:
                raise DataError(f"{key!r} must be an array of uint8, got {getattr(array, 'dtype', 'no array')}")
        return arrays
    except DataError as error:
        raise DataError(f"{path} {error}") from None
    # Bytes that are not an archive can make zipfile, its decompressors and numpy raise any exception.
    except Exception as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path} is not a numpy archive of images: {reason or type(error).__name__}") from None


def _check_unpacked(path: Path, archive: NpzFile, keys: Sequence[str]) -> None:
    assert archive.zip is not None  # it is while the archive is open
    of_file = path.stat().st_size
    for member in archive.zip.infolist():
        if member.filename.removesuffix(".npy") in keys:
            check_unpacked(min(member.compress_size, of_file), member.file_size)


def _read(files: Sequence[Path]) -> Parts:
    [path] = files
    arrays = npz_arrays(path, [KEYS["train"]], [KEYS["validation"], KEYS["test"]])
    return {part: _channels_first(path, key, arrays[key]) for part, key in KEYS.items() if key in arrays}


def _channels_first(path: Path, key: str, images: np.ndarray) -> np.ndarray:
    if images.ndim == 3:
        return images[:, None]
    if images.ndim == 4 and images.shape[-1] in (1, 3):
        return images.transpose(0, 3, 1, 2)
    raise DataError(f"{path}: {key!r} must be [N, H, W] or [N, H, W, 1 or 3], got {list(images.shape)}")


DATASETS.own.add("npz", npz)
