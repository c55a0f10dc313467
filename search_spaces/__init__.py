"""Describes what is compared, one file a study family. Imports neither `trainables` nor `sweeps`.

Modules of this package that define `SWEEPS`, a tuple of `Sweep`s, are found automatically. A warning names modules that
cannot be imported.
"""

import importlib
import logging
import pkgutil
from functools import cache

from search_spaces.space import Sweep

__all__ = ["Sweep", "UnknownSweep", "get_sweep", "list_sweeps"]

log = logging.getLogger(__name__)


class UnknownSweep(KeyError):
    """No sweep has this name; the message lists the known ones."""

    def __str__(self) -> str:
        return str(self.args[0])


@cache
def _sweeps() -> dict[str, Sweep]:
    found: dict[str, Sweep] = {}
    for module in pkgutil.iter_modules(__path__):
        try:
            sweeps: tuple[Sweep, ...] = getattr(importlib.import_module(f"{__name__}.{module.name}"), "SWEEPS", ())
        except Exception as error:  # whatever a user's file can raise; the other sweeps stay usable
            log.warning(
                "search_spaces: %s.py cannot be imported, so its sweeps are missing: %s", module.name, _said(error)
            )
            continue
        for sweep in sweeps:
            if sweep.name in found:
                raise ValueError(f"two sweeps are named {sweep.name!r}")
            found[sweep.name] = sweep
    return found


def _said(error: Exception) -> str:
    """The error in one line; a syntax error names its file and line itself."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def list_sweeps() -> list[str]:
    """The names of all sweeps, sorted."""
    return sorted(_sweeps())


def get_sweep(name: str) -> Sweep:
    """The sweep with this name.

    Raises:
        UnknownSweep: no sweep has this name.
    """
    try:
        return _sweeps()[name]
    except KeyError:
        raise UnknownSweep(f"unknown sweep {name!r}; known: {', '.join(list_sweeps())}") from None
