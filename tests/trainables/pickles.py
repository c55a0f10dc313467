"""Pickled batches of images as different programs write them."""

import pickle
import struct

import numpy as np


def planes(count: int, seed: int = 0) -> np.ndarray:
    """Rows [count, 3072] of random bytes."""
    return np.random.default_rng(seed).integers(256, size=(count, 3072), dtype=np.uint8)


def python2_pickle(rows: np.ndarray) -> bytes:
    """The pickle by Python 2 and numpy of {"labels": [...], "data": rows} in protocol 2, as in CIFAR-10's files."""

    def text(value: bytes) -> bytes:
        return b"U" + bytes([len(value)]) + value

    def number(value: int) -> bytes:
        return b"J" + struct.pack("<i", value)

    empty = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n" + number(0) + b"\x85" + text(b"b") + b"\x87R"
    dtype = b"cnumpy\ndtype\n" + text(b"u1") + number(0) + number(1) + b"\x87R("
    dtype += number(3) + text(b"|") + b"NNN" + number(-1) + number(-1) + number(0) + b"tb"
    shape = number(rows.shape[0]) + number(rows.shape[1]) + b"\x86"
    content = b"T" + struct.pack("<i", rows.size) + rows.tobytes()
    array = empty + b"(" + number(1) + shape + dtype + b"\x89" + content + b"tb"
    labels = b"](" + b"".join(number(index) for index in range(len(rows))) + b"e"
    return b"\x80\x02}(" + text(b"labels") + labels + text(b"data") + array + b"u."


def python3_pickle(rows: np.ndarray, protocol: int = 4) -> bytes:
    """The pickle by Python 3 of a batch of Downsampled ImageNet, which also has a mean image."""
    return pickle.dumps({"data": rows, "labels": [0] * len(rows), "mean": rows.mean(0)}, protocol=protocol)
