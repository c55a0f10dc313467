"""Applies `--set` to a study: a field that is set has one value, and every label stays true.

A setting replaces all values of the field in an axis or a search. A study does not take a field that is set from a
winner. A setting that would make the name of a variant untrue is refused.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from search_spaces.scale import Config
from search_spaces.space import Axis, Choice, Dimension, Study, Variants, Winner

Settings = Mapping[str, Any]
"""Values by dotted path."""


KINDS = (".name", ".family")
"""Endings of the paths that choose a component; another component has other fields."""


class UntrueLabel(ValueError):
    """A setting would make a label differ from what is trained; the message tells what to do."""


def overlap(path: str, other: str) -> bool:
    """Whether two dotted paths are equal, or one lies inside the other."""
    return path == other or path.startswith(f"{other}.") or other.startswith(f"{path}.")


def leaves(config: Config, path: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted path, value) of every field of a nested table."""
    for name, value in config.items():
        where = f"{path}.{name}" if path else name
        if isinstance(value, Mapping) and value:
            yield from leaves(dict(value), where)
        else:
            yield where, value


def fixed(study: Study, settings: Settings) -> Study:
    """The study, with one value for each field that is set.

    Raises:
        UntrueLabel: a setting contradicts the names of a study's variants, or sets a field inside an axis's values.
    """
    for axis in (*study.grid, *(study.search.space if study.search else ())):
        _check(study, axis, settings)
    for path, value in settings.items():
        study = _fixed(study, path, value)
    return study


def _fixed(study: Study, path: str, value: Any) -> Study:
    grid = [_one_value(axis, path, value) for axis in study.grid]
    search = study.search
    if search is not None:
        space = [_one_choice(dimension, path, value) for dimension in search.space]
        # A conditional dimension stays in the search, with one choice: its condition is known only there.
        grid += [Axis(d.path, d.values) for d in space if isinstance(d, Choice) and d.path == path and d.when is None]
        space = [d for d in space if d.key != path or d.when is not None]
        search = dataclasses.replace(search, space=tuple(space)) if space else None
    takes = (_without(winner, path) for winner in study.takes)
    return dataclasses.replace(
        study, grid=tuple(grid), search=search, takes=tuple(winner for winner in takes if winner.fields)
    )


def _one_value(axis: Axis | Variants, path: str, value: Any) -> Axis | Variants:
    return dataclasses.replace(axis, values=(value,)) if isinstance(axis, Axis) and axis.path == path else axis


def _one_choice(dimension: Dimension, path: str, value: Any) -> Dimension:
    if isinstance(dimension, Variants) or dimension.path != path:
        return dimension
    return Choice(path, (value,), dimension.when)


def _without(winner: Winner, path: str) -> Winner:
    return dataclasses.replace(winner, fields=tuple(field for field in winner.fields if not overlap(field, path)))


def _check(study: Study, axis: Axis | Dimension, settings: Settings) -> None:
    """Raises UntrueLabel if a setting would make the values or the names of an axis differ from what is trained."""
    if not isinstance(axis, Variants):
        for path in settings:
            if path.startswith(f"{axis.path}."):  # the values of the axis are tables
                raise _untrue(study, axis.path, path)
        return
    patches = [dict(leaves(patch)) for patch in axis.patches.values()]
    for path, value in settings.items():
        touched = {where: given for patch in patches for where, given in patch.items() if overlap(where, path)}
        # Allowed if only one variant sets the field, such as epochs: the variant is not named for this value.
        several = len({repr(patch[path]) for patch in patches if path in patch}) > 1
        nested = any(where != path and given is not None for where, given in touched.items())
        other_kind = path.endswith(KINDS) and any(given != value for given in touched.values())
        if several or nested or other_kind:
            raise _untrue(study, axis.name, path)
    left = [
        repr({where: value for where, value in patch.items() if not any(overlap(where, path) for path in settings)})
        for patch in patches
    ]
    if len(set(left)) < len({repr(patch) for patch in patches}):
        raise _untrue(study, axis.name, ", ".join(settings))


def _untrue(study: Study, axis: str, path: str) -> UntrueLabel:
    return UntrueLabel(
        f"--set {path}: study {study.name!r} compares values of {axis!r}, which sets this field; "
        "leave the setting out, or choose other studies with --only"
    )
