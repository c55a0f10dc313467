"""The contract of diagnostics: a function that measures trained members, and its description.

Shapes. m members of one stack.

Each file of `trainables/diagnostics/` has the name of its diagnostic. These files import the training, so they are
imported only when a diagnostic is first used. Their names are known before, as fields of `DiagnosticsConfig`.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from trainables.metrics import Metric, describe
from trainables.registry import Registry, submodules


@dataclass(frozen=True)
class Diagnostic:
    """A measurement, its metrics, and the check that it applies."""

    of: Callable[..., dict[str, Tensor]]
    """A function (snapshot, *, draws: the number of codes per image) -> metrics, each [m]."""
    metrics: Mapping[str, Metric]
    draws: int
    """The default number of draws; a plan counts a draw as a training step."""
    check: Callable[[Any], None]
    """A function of a `TrainingConfig`; it raises ValueError if the diagnostic does not apply."""


DIAGNOSTICS: Registry[Diagnostic] = Registry("diagnostic", package="trainables.diagnostics")
DIAGNOSTIC_NAMES = tuple(n for n in submodules([str(Path(__file__).parent / "diagnostics")]) if n != "base")
"""The names of all diagnostics, from the names of their files."""


def _applies(config: Any) -> None:
    pass


def diagnostic(metrics: Mapping[str, Metric], *, check: Callable[[Any], None] = _applies) -> Callable[[Any], Any]:
    """Registers a function (see `Diagnostic.of`), under its own name, as the diagnostic that gives `metrics`.

    Raises:
        ValueError: the name is taken, or a metric is described elsewhere in another way.
    """

    def add(function: Any) -> Any:
        draws = inspect.signature(function).parameters["draws"].default
        describe(metrics)
        DIAGNOSTICS.add(function.__name__, Diagnostic(function, metrics, draws, check))
        return function

    return add
