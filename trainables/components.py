"""The building blocks of a configuration: frozen pydantic models whose every field is a shape or a knob.

A *shape* field decides the program: members that differ in one cannot be trained as one stack of tensors. A *knob* is a
number that each member of a cohort has for itself. A *component* (an estimator, an encoder, …) is a pydantic model with
a `name`; the model is both its configuration and its behaviour, and its registry finds it by that name.
"""

from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Annotated, Any

import torch
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError
from torch import Tensor

from trainables.registry import Registry, UnknownName


class Role(Enum):
    """What a field of a configuration means to a cohort."""

    SHAPE = "shape"
    KNOB = "knob"


SHAPE, KNOB = Role.SHAPE, Role.KNOB

PositiveKnob = Annotated[float, Field(gt=0), KNOB]
NonNegativeKnob = Annotated[float, Field(ge=0), KNOB]
FractionKnob = Annotated[float, Field(ge=0, lt=1), KNOB]
PositiveShape = Annotated[int, Field(gt=0), SHAPE]


class Frozen(BaseModel):
    """An immutable configuration that refuses unknown fields and non-finite numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def leaves(self, prefix: str = "") -> Iterator[tuple[str, Any, Role]]:
        """Every field as (dotted path, value, role), in declaration order.

        Raises:
            TypeError: a field is marked neither as shape nor as knob.
        """
        for name, info in type(self).model_fields.items():
            value, path = getattr(self, name), prefix + name
            if isinstance(value, Frozen):
                yield from value.leaves(path + ".")
                continue
            role = next((mark for mark in info.metadata if isinstance(mark, Role)), None)
            if role is None:
                raise TypeError(f"{type(self).__name__}.{name} is marked neither SHAPE nor KNOB")
            yield path, value, role


class Component(Frozen):
    """A named, pluggable part of a configuration."""

    name: Annotated[str, SHAPE]

    def knob(self, name: str, knobs: Mapping[str, Tensor]) -> Tensor:
        """The member's value of a knob, or the component's own where it is used outside a cohort."""
        return knobs[name] if name in knobs else torch.as_tensor(getattr(self, name))


def chosen_from(registry: Mapping[str, Any]) -> BeforeValidator:
    """Marks a field that accepts any component of a registry, chosen by its `name`.

    Registries hold default instances; a dictionary is validated by the class of the instance of that name.
    """

    def parse(value: Any) -> Any:
        if isinstance(value, Component):
            return value
        if not isinstance(value, Mapping) or not isinstance(value.get("name"), str):
            raise PydanticCustomError("component", "must be a table with a 'name', got {value}", {"value": repr(value)})
        try:
            default = registry[value["name"]]
        except UnknownName as error:
            raise PydanticCustomError("component", "{message}", {"message": str(error)}) from None
        return type(default).model_validate(dict(value))

    return BeforeValidator(parse)


def registered(registry: Registry[Any]) -> Any:
    """A class decorator that adds a component's default instance to a registry."""

    def add(cls: type[Component]) -> type[Component]:
        default = cls()  # pyright: ignore[reportCallIssue]  # subclasses give every field a default
        registry.add(default.name, default)
        return cls

    return add
