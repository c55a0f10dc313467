"""The size of a data set, for planning: reports a user's unusable files in one line."""

from pathlib import Path

from sweeps.errors import UserError
from trainables.data import DataError, sizes
from trainables.data.sizes import Size


def size_of(name: str, data_dir: Path) -> Size:
    """The size of a data set. Reads the files only for a user's own images.

    Raises:
        UserError: the files are missing or cannot be used.
    """
    try:
        return sizes.size_of(name, data_dir)
    except DataError as error:
        raise UserError(f"data set {name!r}: {error}") from None
