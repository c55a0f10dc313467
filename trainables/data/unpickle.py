"""Reads pickled batches of images without executing any code from them.

A pickle is a program: it names Python functions to be called, and `pickle.load` calls them. The reader here knows only
the four functions in pickled numpy arrays, and records their arguments instead of calling them. It does not even call
numpy's own functions: with a crafted state of a `dtype`, an array can read foreign memory.
"""

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from trainables.data.base import DataError


class _Recorded:
    """A function call in a pickle, and the state that the pickle sets on the result."""

    args: tuple[Any, ...] = ()
    state: Any = None

    def __init__(self, *args: Any):
        self.args = args

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Reconstruct(_Recorded):
    """A call with (subtype, shape, dtype); its state is (version, shape, dtype, is Fortran order, bytes)."""


class _NDArray(_Recorded):
    """The subtype of an array."""


class _DType(_Recorded):
    """A dtype; its first argument is its code, such as "u1"."""


class _Encode(_Recorded):
    """Bytes that Python 3 wrote in the format of Python 2: (text, "latin1")."""


_KNOWN = {
    ("numpy.core.multiarray", "_reconstruct"): _Reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _Reconstruct,
    ("numpy", "ndarray"): _NDArray,
    ("numpy", "dtype"): _DType,
    ("_codecs", "encode"): _Encode,
}


# The implementation in Python, since a pickle can make the one in C allocate any amount of memory.
class _Unpickler(pickle._Unpickler):
    def find_class(self, module: str, name: str) -> type[_Recorded]:
        try:
            return _KNOWN[module, name]
        except KeyError:
            wanted = ascii(f"{module}.{name}")[:100]  # a name may be anything
            raise DataError(f"it contains {wanted}, which images do not need") from None


def pickled_images(path: Path, content: bytes, key: str = "data") -> np.ndarray:
    """The uint8 array under a key of a pickled dictionary, as written by Python 2 or 3.

    Args:
        path: of the file, for messages.
        content: the bytes of the file.
        key: of the array; the pickle may have it as text or bytes.

    Raises:
        DataError: this is not a pickle, it holds more than arrays and plain containers, or it has no such array.
    """
    try:
        batch = _Unpickler(io.BytesIO(content), encoding="bytes").load()
        named = {_text(name): value for name, value in batch.items()}
        if key not in named:
            raise DataError(f"it has no {key!r}")
        return _array(named[key])
    except DataError as error:
        raise DataError(f"{path} is not a batch of images: {error}") from None
    # Bytes that are not a pickle can make the reader raise any exception.
    except Exception as error:
        raise DataError(f"{path} is not a batch of images ({type(error).__name__})") from None


def _text(name: Any) -> Any:
    name = _plain(name)
    return name.decode("latin1") if isinstance(name, bytes) else name


def _plain(value: Any) -> Any:
    return value.args[0].encode("latin1") if isinstance(value, _Encode) else value


def _array(value: Any) -> np.ndarray:
    if not isinstance(value, _Reconstruct):
        raise DataError("its data are not an array")
    _, shape, dtype, fortran, content = value.state
    if not isinstance(dtype, _DType) or _text(dtype.args[0]) not in ("u1", "uint8"):
        raise DataError("its data are not uint8")
    return np.frombuffer(_plain(content), np.uint8).reshape(shape, order="F" if fortran else "C")
