"""The store of images: one Arrow IPC file per data set, mapped into memory and shared by all processes of a machine.

The schema has one column, `image`: the C * H * W bytes of an image. Each part of the source ("train", "validation",
"test") is one record batch, so its images are contiguous and numpy reads them without a copy. The schema's metadata
describe the content, and have its checksum, which is checked whenever a process opens the file.
"""

import contextlib
import hashlib
import json
import logging
import math
import os
import re
import stat
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import fs

from trainables.data.base import DataError
from trainables.filesystem import appearing

FORMAT = 2
"""A version, raised whenever a reader would give other images for the same files, or the store has another form."""

_HEADER = b"images"
_BLOCK = 2**24
"""Bytes of a block of the checksum; blocks are hashed in parallel."""
_log = logging.getLogger(__name__)


def stored(
    name: str, files: Sequence[Path], folder: Path, read: Callable[[], Mapping[str, np.ndarray]]
) -> Mapping[str, np.ndarray]:
    """The parts of a data set, from the store; on the first call they come from `read` and are stored.

    Stored images belong to the names, sizes and modification times of `files`. If one of these changes, the images are
    read again, and a warning says if they are different. They are also read again, with a warning, if the stored file
    is damaged. Several processes may do this at the same time: each writes a temporary file, and the first one in place
    stays. If the folder cannot be written, nothing is stored.

    Args:
        name: of the data set.
        files: the files that `read` reads, in a fixed order.
        folder: of the store; created if needed.
        read: gives uint8 images [N, C, H, W] by part, all with the same [C, H, W].

    Returns:
        Images by part, read-only if they come from the store.

    Raises:
        DataError: a file does not exist, is not a regular file or cannot be read; also everything that `read` raises.
    """
    path = folder / f"{_slug(name)}-{_fingerprint(name, files, folder)}.arrow"
    parts = _mapped(path)
    if parts is not None:
        return parts
    if path.exists():
        _log.warning(
            "The stored images of data set %r are damaged (%s); they are read again from its files.", name, path
        )
    parts = read()
    if _writable(folder):
        with contextlib.suppress(OSError):  # for instance a full disk
            _write(path, name, parts)
    return _mapped(path) or parts


def _writable(folder: Path) -> bool:
    """Whether the mode of the folder, or of its nearest existing parent, allows writing."""
    while not folder.exists():
        folder = folder.parent
    # Not `os.access`: programs in containers often run as root, which may write to read-only folders, too.
    return bool(folder.stat().st_mode & 0o222)


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._]+", "_", name)[-80:]


def _fingerprint(name: str, files: Sequence[Path], folder: Path) -> str:
    facts = []
    for path in files:
        try:
            status = path.stat()
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}") from None
        if not stat.S_ISREG(status.st_mode):  # reading a pipe or a device could last for ever
            raise DataError(f"{path} is not a regular file")
        # Relative, so that the path of the data folder does not matter.
        facts.append((os.path.relpath(path, folder), status.st_size, status.st_mtime_ns))
    return hashlib.sha256(json.dumps([FORMAT, name, facts]).encode()).hexdigest()[:16]


def _write(path: Path, name: str, parts: Mapping[str, np.ndarray]) -> None:
    image_shape = next(iter(parts.values())).shape[1:]
    column = pa.field("image", pa.binary(math.prod(image_shape)), nullable=False)
    header = {"name": name, "parts": list(parts), "image_shape": image_shape, "blocks_sha256": _sha256(parts)}
    schema = pa.schema([column], metadata={_HEADER: json.dumps(header)})
    with (
        # A file that another process wrote in the meantime stays: another machine may have mapped it, and on a network
        # file system, replacing the file can break that mapping.
        appearing(fs.LocalFileSystem(), str(path), keep=lambda: _mapped(path) is not None) as partial,
        pa.OSFile(partial, "wb") as sink,
        pa.ipc.new_file(sink, schema) as writer,
    ):
        for images in parts.values():
            pixels = pa.py_buffer(np.ascontiguousarray(images).data)
            rows = pa.FixedSizeBinaryArray.from_buffers(column.type, len(images), [None, pixels])
            writer.write_batch(pa.record_batch([rows], schema=schema))
    _retire(path, header)


def _retire(path: Path, header: dict[str, Any]) -> None:
    """Deletes stored files of the same data set from before its sources changed; warns if the images are different."""
    for other in path.parent.glob(f"{_slug(header['name'])}-*.arrow"):
        before = _header(other)
        if other != path and before is not None and before.get("name") == header["name"]:
            # An earlier version of the program wrote another checksum, which says nothing about the images.
            if before.get("blocks_sha256", header["blocks_sha256"]) != header["blocks_sha256"]:
                _log.warning(
                    "Data set %r has other images than when it was last read. Members trained on the old images still "
                    "count as done; to train them again, give the new images another name.",
                    header["name"],
                )
            other.unlink(missing_ok=True)


def _header(path: Path) -> dict[str, Any] | None:
    try:
        with pa.memory_map(str(path)) as source:
            return dict(json.loads(pa.ipc.open_file(source).schema.metadata[_HEADER]))
    except Exception:  # bytes that are not such a file can make pyarrow and json raise any exception
        return None


def _mapped(path: Path) -> dict[str, np.ndarray] | None:
    """Read-only views of a stored file; None if the file does not exist or is damaged."""
    try:
        with pa.memory_map(str(path)) as source:  # the arrays keep the mapping alive when it is closed
            reader = pa.ipc.open_file(source)
            header = json.loads(reader.schema.metadata[_HEADER])
            named = enumerate(header["parts"])
            parts = {part: _images(reader.get_batch(index), header["image_shape"]) for index, part in named}
            return parts if header["blocks_sha256"] == _sha256(parts) else None
    except Exception:  # as in `_header`
        return None


def _images(batch: pa.RecordBatch, image_shape: Sequence[int]) -> np.ndarray:
    """Images [N, C, H, W] of a record batch, without a copy."""
    count = batch.num_rows * math.prod(image_shape)
    pixels = pa.Array.from_buffers(pa.uint8(), count, [None, batch.column(0).buffers()[1]])
    return pixels.to_numpy().reshape(-1, *image_shape)


def _sha256(parts: Mapping[str, np.ndarray]) -> str:
    """A checksum of the images: the sha256 of the sha256 of all blocks. Takes all cores, so it is as fast as memory."""
    digest = hashlib.sha256()
    with ThreadPoolExecutor() as threads:
        for part, images in parts.items():
            digest.update(f"{part} {images.shape}".encode())
            content = np.ascontiguousarray(images).data.cast("B")
            blocks = (content[start : start + _BLOCK] for start in range(0, len(content), _BLOCK))
            for each in threads.map(lambda block: hashlib.sha256(block).digest(), blocks):
                digest.update(each)
    return digest.hexdigest()
