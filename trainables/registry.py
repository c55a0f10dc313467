"""Registries: dictionaries that refuse duplicates, list the choices for unknown names, and import plug-ins' files."""

import difflib
import importlib
import pkgutil
from collections.abc import Iterable
from typing import TypeVar

V = TypeVar("V")


class UnknownName(KeyError):
    """A name that is not registered; the message lists the choices."""

    def __str__(self) -> str:
        return str(self.args[0])


def nearest(name: str, choices: Iterable[str]) -> str:
    """' Did you mean …?' for the closest choice, or an empty string."""
    close = difflib.get_close_matches(name, list(choices), n=1, cutoff=0.6)
    return f" Did you mean {close[0]!r}?" if close else ""


class Registry(dict[str, V]):
    """A dictionary of plug-ins of one kind.

    Args:
        kind: of the plug-ins, for messages.
        package: imported when a name is first missing; it registers its plug-ins. Needed if the plug-ins import modules
            that import the registry.
    """

    def __init__(self, kind: str, package: str | None = None):
        super().__init__()
        self.kind, self._package = kind, package

    def __missing__(self, name: str) -> V:
        if self._package is not None:
            package, self._package = self._package, None
            importlib.import_module(package)
            return self[name]
        raise UnknownName(f"unknown {self.kind} {name!r}.{nearest(str(name), self)} Known: {', '.join(sorted(self))}.")

    def add(self, name: str, value: V) -> None:
        """Registers a plug-in.

        Raises:
            ValueError: the name is already taken.
        """
        if name in self:
            raise ValueError(f"two {self.kind}s are named {name!r}; rename one of them")
        self[name] = value


def submodules(path: Iterable[str]) -> list[str]:
    """The names of a package's modules, except names with a leading underscore."""
    return [module.name for module in pkgutil.iter_modules(path) if not module.name.startswith("_")]


def import_submodules(package: str, path: Iterable[str]) -> None:
    """Imports every module of a package, except names with a leading underscore, so that a new file is registered."""
    for name in submodules(path):
        importlib.import_module(f"{package}.{name}")
