"""Titles of configuration fields: what tables, figures and messages call a field.

A title stands beside its field, as `Field(title="temperature (forward)")`. A field without one is called by its name.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, get_args

from pydantic.fields import FieldInfo

from trainables.components import Frozen
from trainables.config import TrainingConfig


@lru_cache
def title(path: str) -> str:
    """The title of a field, given by its dotted path; of other texts, such as a variant's name, the last part.

    A component's name has the title of the component: "estimator". A field that other parts of the configuration have
    too is told apart by its part: "hidden (encoder)".
    """
    *parents, leaf = path.split(".")
    above = _field(parents) if parents else None
    own = _field([*parents, leaf])
    if above is not None and leaf == "name":
        return above.title or _words(parents[-1])
    text = own.title if own is not None and own.title else _words(leaf)
    if len(parents) == 1 and own is not None and _parts_with(leaf) > 1:
        text += f" ({(above.title if above else None) or _words(parents[0])})"
    return text


def _words(name: str) -> str:
    return name.replace("_", " ")


def _field(parts: list[str]) -> FieldInfo | None:
    """The field at a path, in the first class of components that has it; None if there is none."""
    classes: list[type[Frozen]] = [TrainingConfig]
    found = None
    for part in parts:
        fields = [fields[part] for each in classes if part in (fields := each.model_fields)]
        if not fields:
            return None
        found = next((each for each in fields if each.title), fields[0])
        classes = [each for each in fields for each in _classes(each.annotation)]
    return found


def _parts_with(leaf: str) -> int:
    """The number of parts of a configuration that have a field of this name."""
    return sum(_field([part, leaf]) is not None for part in TrainingConfig.model_fields)


def _classes(annotation: Any) -> Iterator[type[Frozen]]:
    """The configuration classes that a field accepts, with the components derived from them."""
    for each in (annotation, *get_args(annotation)):
        if isinstance(each, type) and issubclass(each, Frozen):
            yield each
            for below in each.__subclasses__():
                yield from _classes(below)
