"""Applies the settings of the command line (`--set`) to configurations."""

import difflib
import json
from collections.abc import Iterable, Mapping
from typing import Any, cast

from pydantic import ValidationError

from search_spaces.scale import due_in_time
from search_spaces.settings import KINDS, Settings, overlap
from search_spaces.space import Config, merge, nested
from sweeps.errors import UserError
from sweeps.planning.precision import complete

DIAGNOSTICS = "diagnostics"
"""The only table that `--set` can set as a whole: `--set diagnostics={}` measures nothing."""


def parse_setting(text: str) -> tuple[str, Any]:
    """Parses KEY=VALUE of `--set`: a dotted path, and a JSON value or a bare word.

    Raises:
        UserError: the text has no '=' or no key.
    """
    path, equals, value = text.partition("=")
    if not equals or not path.strip():
        raise UserError(f"--set needs KEY=VALUE, got {text!r}; for example --set optim.lr=1e-3")
    try:
        return path.strip(), json.loads(value)
    except (ValueError, RecursionError):  # RecursionError for thousands of brackets
        return path.strip(), value.strip()


def check_known(settings: Settings, configs: Iterable[Config], searched: Iterable[str]) -> None:
    """Checks that each setting is for a field that some configuration has.

    Args:
        settings: values by dotted path.
        configs: configurations of all cells.
        searched: paths that axes and searches vary.

    Raises:
        UserError: no configuration has the field; the message names a similar field, or all of them.
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
    """A configuration with the settings of all fields that it has. Diagnostics that would come too late are moved.

    Args:
        config: the configuration in its study.
        settings: values by dotted path.
        kept: paths of the fields that distinguish the study's members. They keep their values, unless they are set
            themselves, even if a setting replaces their component.

    Raises:
        UserError: the component that a setting chooses lacks a field of `kept`.
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
                    f"--set {given} removes field {path!r}, which distinguishes the members of a study; "
                    "leave the setting out, or choose other studies with --only"
                )
            config = merge(config, nested(path, value))
    return config if sets_diagnostics(settings) else due_in_time(config, epochs)


def sets_diagnostics(settings: Settings) -> bool:
    """Whether a setting sets diagnostics; if none does, a shorter training moves them."""
    return any(path.split(".")[0] == DIAGNOSTICS for path in settings)


def _with_kinds(config: Config, settings: Settings) -> Config:
    """A configuration with the components that the settings choose; components decide which other fields exist."""
    fields = _fields(config)
    for path, value in settings.items():
        if path.endswith(KINDS) and path in fields and _at(config, path) != value:
            config = merge(config, nested(path, value))
    return config


def _fields(config: Config) -> set[str]:
    """The dotted paths of a configuration with its defaults filled in; empty if it is not valid."""
    try:
        return set(complete(config).flat())
    except ValidationError:
        return set()  # reported later, with the study's name


_ABSENT = object()


def _at(config: Config, path: str) -> object:
    first, _, rest = path.partition(".")
    value: object = config.get(first, _ABSENT)
    if not rest:
        return value
    return _at(cast(Config, value), rest) if isinstance(value, Mapping) else _ABSENT
