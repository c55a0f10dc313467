"""Other images in the place of a data set that is missing: asked for by name, or offered by a reduced scale."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from search_spaces.scale import STAND_INS
from sweeps.errors import UserError
from trainables.data import DATASETS, MissingFiles, load
from trainables.registry import UnknownName


def parse(texts: Sequence[str]) -> dict[str, str]:
    """NAME=OTHER of `--stand-in`, as a table.

    Raises:
        UserError: there is no '=', or no such data set.
    """
    found: dict[str, str] = {}
    for text in texts:
        name, equals, other = text.partition("=")
        if not equals or not name or not other:
            raise UserError(f"--stand-in needs NAME=OTHER, got {text!r}; for example --stand-in cifar10=patches")
        for one in (name, other):
            try:
                DATASETS[one]
            except UnknownName as error:
                raise UserError(f"--stand-in {text!r}: {error}") from None
        found[name] = other
    return found


def offered(data_sets: Iterable[str], data_dir: Path) -> dict[str, str]:
    """What stands in for those data sets whose files are missing. A damaged file is no missing one: it is told."""
    return {name: STAND_INS[name] for name in data_sets if name in STAND_INS and _missing(name, data_dir)}


def _missing(name: str, data_dir: Path) -> bool:
    try:
        load(name, data_dir)
    except MissingFiles:
        return True
    except ValueError:
        return False
    return False
