"""MNIST: 28x28 handwritten digits (LeCun et al. 1998), from the original idx files where torchvision puts them."""

import gzip
import hashlib
from pathlib import Path

import numpy as np

from trainables.data.base import DATASETS, DataError, Images

VALIDATION = 10_000
_FILE = "train-images-idx3-ubyte"
_MD5_GZ = "f68b3c2dcbeaaa9fbdd348bbdeb94873"
_SHAPE = (60_000, 28, 28)
_HEADER = np.array([0x00000803, *_SHAPE], dtype=">u4").tobytes()
"""Magic number (unsigned bytes, three axes) and the size of each axis, big-endian."""


def mnist(data_dir: Path) -> Images:
    """50,000 training and 10,000 validation images, [N, 1, 28, 28]: the first and the last of the training file.

    The test file is never opened: nothing is ever chosen on it. Reads `train-images-idx3-ubyte.gz`, or the same
    unpacked, in `data_dir`/MNIST/raw.

    Raises:
        DataError: neither file is there, or it is damaged or another file.
    """
    raw = data_dir / "MNIST" / "raw"
    content = _content(raw, data_dir)
    if content[: len(_HEADER)] != _HEADER:
        raise DataError(f"{raw / _FILE} is not MNIST: its header should say 60,000 images of 28x28 bytes")
    expected = len(_HEADER) + int(np.prod(_SHAPE))
    if len(content) != expected:
        raise DataError(
            f"{raw / _FILE} is damaged: {len(content):,} bytes, expected {expected:,}; delete it and get it anew"
        )
    # A copy: frombuffer gives a read-only view, which torch warns about.
    images = np.frombuffer(content, np.uint8, offset=len(_HEADER)).reshape(_SHAPE)[:, None].copy()
    return Images(train=images[:-VALIDATION], validation=images[-VALIDATION:])


def _content(raw: Path, data_dir: Path) -> bytes:
    packed = raw / f"{_FILE}.gz"
    if packed.is_file():
        content = packed.read_bytes()
        if (md5 := hashlib.md5(content, usedforsecurity=False).hexdigest()) != _MD5_GZ:
            raise DataError(f"{packed} is damaged: md5 {md5}, expected {_MD5_GZ}; delete it and get it anew")
        return gzip.decompress(content)
    if (raw / _FILE).is_file():
        return (raw / _FILE).read_bytes()
    raise DataError(
        f"MNIST is missing: no {_FILE}.gz in {raw}; get it with "
        f"""python -c "from torchvision.datasets import MNIST; MNIST({str(data_dir)!r}, download=True)\""""
    )


DATASETS.add("mnist", mnist)
