"""The contract of every diagnostic: a function that measures trained members, and what may be known without calling it.

Shapes. m members of one stack.

Diagnostics are the files of `trainables/diagnostics/`, each named for its diagnostic. They use what trains members, so
they are imported when one is first asked for; their names are known before, as fields of `DiagnosticsConfig`.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from trainables.registry import Registry, submodules


@dataclass(frozen=True)
class Diagnostic:
    """A measurement, its metrics, and where it applies."""

    of: Callable[..., dict[str, Tensor]]
    """(snapshot, *, draws: how many codes it draws for an image) -> metrics, each [m]."""
    metrics: tuple[str, ...]
    draws: int
    """How often it draws by default; a plan counts a measurement as so many steps of training."""
    check: Callable[[Any], None]
    """Takes a `TrainingConfig`; raises ValueError where the diagnostic does not apply to it."""


DIAGNOSTICS: Registry[Diagnostic] = Registry("diagnostic", package="trainables.diagnostics")
DIAGNOSTIC_NAMES = tuple(n for n in submodules([str(Path(__file__).parent / "diagnostics")]) if n != "base")
"""The names of all diagnostics, known by their files."""


def _applies(config: Any) -> None:
    pass


def diagnostic(*metrics: str, check: Callable[[Any], None] = _applies) -> Callable[[Any], Any]:
    """Registers a function (see `Diagnostic.of`), under its own name, as the diagnostic that gives `metrics`."""

    def add(function: Any) -> Any:
        draws = inspect.signature(function).parameters["draws"].default
        DIAGNOSTICS.add(function.__name__, Diagnostic(function, metrics, draws, check))
        return function

    return add
