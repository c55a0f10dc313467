"""Finds the sweeps of this package and of a folder of the user's own: the files that define `SWEEPS`.

A file that cannot be used never hides the others. A warning names it, with the reason.
"""

import importlib
import importlib.util
import logging
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import ModuleType

from search_spaces.space import Sweep

_PACKAGE = "search_spaces"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Catalogue:
    """Sweeps, and what keeps others out.

    sweeps: by name.
    unusable: files that cannot be imported, or whose `SWEEPS` is not a tuple of sweeps, with the reason.
    taken: names that two files give to a sweep, with both files. Neither sweep is in `sweeps`.
    """

    sweeps: Mapping[str, Sweep]
    unusable: Mapping[Path, str]
    taken: Mapping[str, tuple[Path, Path]]


@cache
def known_sweeps(folder: Path | None = None) -> Catalogue:
    """The sweeps of this package and of a folder, if one is given. Each file is imported once in a process.

    Raises:
        OSError: the folder cannot be read.
    """
    if folder is not None and not folder.is_dir():
        raise NotADirectoryError(f"--studies: {str(folder)!r} is no folder; name one with files that define SWEEPS")
    files = [(path, None) for place in sys.modules[_PACKAGE].__path__ for path in _python_files(Path(place))]
    files += [] if folder is None else [(path, folder) for path in _python_files(folder)]
    sweeps: dict[str, Sweep] = {}
    origins: dict[str, Path] = {}
    taken: dict[str, tuple[Path, Path]] = {}
    unusable: dict[Path, str] = {}
    for path, own in files:
        try:
            found = _declared(importlib.import_module(f"{_PACKAGE}.{path.stem}") if own is None else _own(path))
        except (Exception, SystemExit) as error:  # whatever a user's file can raise
            unusable[path] = _reason(error, path)
            log.warning("%s cannot be used, so its sweeps are missing: %s", path, unusable[path])
            continue
        for sweep in found:
            before = origins.setdefault(sweep.name, path)
            if sweep.name in sweeps and sweeps[sweep.name] is not sweep:
                taken[sweep.name] = before, path
            sweeps[sweep.name] = sweep if own is None else replace(sweep, folder=str(own))
    for name, (one, other) in taken.items():
        log.warning("%s and %s both have a sweep named %r; neither can be run until one is renamed", one, other, name)
        del sweeps[name]
    return Catalogue(sweeps, unusable, taken)


def _python_files(folder: Path) -> list[Path]:
    """The Python files of a folder, sorted, without names that begin with an underscore."""
    return sorted(path for path in folder.iterdir() if path.suffix == ".py" and not path.name.startswith("_"))


def _own(path: Path) -> ModuleType:
    """The module of a user's file. It can import files beside it; modules that are installed come first."""
    if str(path.parent.absolute()) not in sys.path:
        sys.path.append(str(path.parent.absolute()))
    name = f"studies.{path.stem}"  # not the plain name, since a study may be called like a module of Python
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None  # the name ends with .py
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses of the file look for their module there
    spec.loader.exec_module(module)
    return module


def _declared(module: ModuleType) -> tuple[Sweep, ...]:
    """The sweeps of a module; none if it does not define `SWEEPS`."""
    declared: object = getattr(module, "SWEEPS", ())
    sweeps = [each for each in declared if isinstance(each, Sweep)] if isinstance(declared, tuple | list) else []
    if not isinstance(declared, tuple | list) or len(sweeps) < len(declared):
        raise TypeError("SWEEPS must be a tuple of Sweep, as in SWEEPS = (Sweep(…),)")
    for sweep in sweeps:
        if "-" in sweep.name:
            raise ValueError(f"sweep {sweep.name!r}: a hyphen is for reduced and searched sweeps; write an underscore")
    return tuple(sweeps)


def _reason(error: BaseException, path: Path) -> str:
    """The error in one line, with the line of the file; a syntax error names its own line."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    where = f" ({path.name}, line {lines[-1]})" if lines and not isinstance(error, SyntaxError) else ""
    return " ".join(f"{type(error).__name__}: {error}".split()) + where
