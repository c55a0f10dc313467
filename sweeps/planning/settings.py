"""Settings of the command line (`--set`), applied to configurations."""

import difflib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from search_spaces.scale import due_in_time
from search_spaces.settings import KINDS, Settings, overlap
from search_spaces.space import Config, merge, nested
from sweeps.errors import UserError
from sweeps.planning.precision import complete

DIAGNOSTICS = "diagnostics"
"""The one table that `--set` takes as a whole: `--set diagnostics={}` measures nothing."""


def parse_setting(text: str) -> tuple[str, Any]:
    """KEY=VALUE of `--set`: a dotted path, and a JSON value or a bare word.

    Raises:
        UserError: there is no '='.
    """
    path, equals, value = text.partition("=")
    if not equals or not path.strip():
        raise UserError(f"--set needs KEY=VALUE, got {text!r}; for example --set optim.lr=1e-3")
    try:
        return path.strip(), json.loads(value)
    except (ValueError, RecursionError):  # the latter of thousands of brackets
        return path.strip(), value.strip()


def check_known(settings: Settings, configs: Iterable[Config], searched: Iterable[str]) -> None:
    """Whether each setting is of a field that some configuration has.

    Args:
        settings: values by dotted path.
        configs: of all cells.
        searched: paths that a search adds to them.

    Raises:
        UserError: it is not; the message names the nearest field.
    """
    if not settings:
        return
    known = set(searched).union(*(_fields(_with_kinds(config, settings)) | _fields(config) for config in configs))
    for path in settings:
        if path not in known and path != DIAGNOSTICS:
            close = difflib.get_close_matches(path, known, n=1, cutoff=0.3)
            hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(sorted(known))}"
            raise UserError(f"--set: no member has a field {path!r}; {hint}")


def apply(config: Config, settings: Settings, kept: Iterable[str]) -> Config:
    """A configuration with every setting of a field that it has; diagnostics due too late are moved.

    Args:
        config: as its study has it.
        settings: values by dotted path.
        kept: paths of fields by which the study tells its members apart. They keep their value, unless they are set
            themselves, also where a setting replaces the component that they belong to.

    Raises:
        UserError: the new component has no such field.
    """
    if not settings:
        return config
    before = {path: _at(config, path) for path in kept if not any(overlap(path, other) for other in settings)}
    config = _with_kinds(config, settings)
    fields = _fields(config)
    epochs = config["epochs"]
    for path, value in settings.items():
        if path == DIAGNOSTICS:
            config = config | {path: value}
        elif path in fields and _at(config, path) != value:
            config = merge(config, nested(path, value))
    for path, value in before.items():
        if _at(config, path) != value:
            if fields and path not in fields:
                given = ", ".join(f"{name}={value}" for name, value in settings.items())
                raise UserError(
                    f"--set {given} leaves no field {path!r}, by which members are told apart; "
                    "leave the setting out, or choose other studies with --only"
                )
            config = merge(config, nested(path, value))
    return config if sets_diagnostics(settings) else due_in_time(config, epochs)


def sets_diagnostics(settings: Settings) -> bool:
    """Whether a setting says which diagnostics are measured; otherwise a shorter training moves them."""
    return any(path.split(".")[0] == DIAGNOSTICS for path in settings)


def _with_kinds(config: Config, settings: Settings) -> Config:
    """A configuration with the components that settings choose, since those decide which other fields there are."""
    fields = _fields(config)
    for path, value in settings.items():
        if path.endswith(KINDS) and path in fields and _at(config, path) != value:
            config = merge(config, nested(path, value))
    return config


def _fields(config: Config) -> set[str]:
    """The dotted paths that a configuration has once its defaults are filled in."""
    try:
        return set(complete(config).flat())
    except ValidationError:
        return set()  # told later, with the study's name


_ABSENT = object()


def _at(config: Config, path: str) -> Any:
    value: Any = config
    for part in path.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return _ABSENT
        value = value[part]
    return value
