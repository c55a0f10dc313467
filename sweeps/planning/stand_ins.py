"""Stand-ins: data sets that replace a missing one, asked for by name or offered by a reduced scale."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from search_spaces.scale import STAND_INS
from sweeps.errors import UserError
from trainables.data import DATASETS, MissingFiles, load
from trainables.registry import UnknownName


def parse(texts: Sequence[str]) -> dict[str, str]:
    """Parses NAME=OTHER of `--stand-in` into OTHER by NAME.

    Raises:
        UserError: a text is not NAME=OTHER, or there is no such data set.
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
    """Stand-ins for data sets with missing files, by name. A damaged file is not replaced; loading reports it."""
    return {name: STAND_INS[name] for name in data_sets if name in STAND_INS and _missing(name, data_dir)}


def _missing(name: str, data_dir: Path) -> bool:
    try:
        load(name, data_dir)
    except MissingFiles:
        return True
    except ValueError:
        return False
    return False
