"""Describes what is compared, one file a study family. Imports neither `trainables` nor `sweeps`.

Modules of this package that define `SWEEPS`, a tuple of `Sweep`s, are found automatically, and so are the files of a
folder of the user's own. `search_spaces.catalogue` says which files cannot be used.
"""

from pathlib import Path

from search_spaces.catalogue import known_sweeps
from search_spaces.space import Sweep

__all__ = ["Sweep", "UnknownSweep", "get_sweep", "list_sweeps"]


class UnknownSweep(KeyError):
    """No sweep has this name, or two have it; the message says what to do."""

    def __str__(self) -> str:
        return str(self.args[0])


def list_sweeps(folder: Path | None = None) -> list[str]:
    """The names of all sweeps, sorted.

    Args:
        folder: a folder with studies of the user's own, which are listed too.

    Raises:
        OSError: the folder cannot be read.
    """
    return sorted(known_sweeps(folder).sweeps)


def get_sweep(name: str, folder: Path | None = None) -> Sweep:
    """The sweep with this name.

    Args:
        name: of the sweep.
        folder: a folder with studies of the user's own.

    Raises:
        UnknownSweep: no sweep has this name, or two files have one.
        OSError: the folder cannot be read.
    """
    known = known_sweeps(folder)
    if name in known.sweeps:
        return known.sweeps[name]
    if name in known.taken:
        one, other = known.taken[name]
        raise UnknownSweep(f"two sweeps are named {name!r}, in {one} and in {other}; rename one of them")
    perhaps = f"it may be in {', '.join(map(str, known.unusable))}, which cannot be used; " if known.unusable else ""
    raise UnknownSweep(f"unknown sweep {name!r}; {perhaps}known: {', '.join(sorted(known.sweeps))}")
