"""The building blocks of a configuration: frozen pydantic models. Every field is a shape or a knob.

A *shape* field decides the program: members that differ in it cannot be trained as one stack of tensors. A *knob* is a
number that can differ between the members of a stack. A *component* (an estimator, an encoder, …) is a pydantic model
with a `name`. It is both configuration and behaviour, and a registry has it under that name.
"""

import math
import reprlib
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Annotated, Any, TypeVar

import numpy as np
import torch
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError
from torch import Tensor

from trainables.registry import Registry, UnknownName, nearest

V = TypeVar("V")


class Role(Enum):
    """The meaning of a configuration's field for a cohort."""

    SHAPE = "shape"
    KNOB = "knob"


SHAPE, KNOB = Role.SHAPE, Role.KNOB

LARGEST = 2**31 - 1
"""The largest count in a configuration: the ledger keeps epochs in 32 bits."""
_SMALLEST32, _LARGEST32 = (float(limit) for limit in (np.finfo(np.float32).tiny, np.finfo(np.float32).max))


def complaint(message: str) -> PydanticCustomError:
    """A validation error with a complete message; `config.explain` adds only the path of the field."""
    return PydanticCustomError("complaint", "{message}", {"message": message})


def _in_float32(value: float) -> float:
    """Refuses a number that would be 0 or infinite in float32, in which members are trained."""
    if value != 0 and not _SMALLEST32 <= abs(value) <= _LARGEST32:
        raise complaint(f"must be between {_SMALLEST32:.3g} and {_LARGEST32:.3g}, the range of float32, got {value!r}")
    return value


def _below_one(value: float) -> float:
    if np.float32(value) == 1:
        raise complaint(f"must be below 1, and is 1 in float32, got {value!r}")
    return value


_Float32 = AfterValidator(_in_float32)
PositiveKnob = Annotated[float, Field(gt=0), _Float32, KNOB]
OptionalPositiveKnob = Annotated[PositiveKnob | None, KNOB]
NonNegativeKnob = Annotated[float, Field(ge=0), _Float32, KNOB]
FractionKnob = Annotated[float, Field(ge=0, lt=1), _Float32, AfterValidator(_below_one), KNOB]
Count = Annotated[int, Field(ge=1, le=LARGEST)]
PositiveShape = Annotated[int, Field(gt=0, le=LARGEST), SHAPE]
Name = Annotated[str, SHAPE]


class Frozen(BaseModel):
    """An immutable configuration that refuses unknown fields and non-finite numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _known_fields(cls, values: Any) -> Any:
        """Refuses unknown fields, as `extra="forbid"` does, but with a message that lists the known ones."""
        for name in values if isinstance(values, Mapping) else ():
            if name not in cls.model_fields:
                known = ", ".join(cls.model_fields)
                raise complaint(f"unknown field {name!r}.{nearest(str(name), cls.model_fields)} Known: {known}.")
        return values

    def leaves(self, prefix: str = "") -> Iterator[tuple[str, Any, Role]]:
        """Every field as (dotted path, value, role), in declaration order.

        Raises:
            TypeError: a field is marked neither as a shape nor as a knob.
        """
        for name, info in type(self).model_fields.items():
            value, path = getattr(self, name), prefix + name
            if isinstance(value, Frozen):
                yield from value.leaves(path + ".")
                continue
            role = next((mark for mark in info.metadata if isinstance(mark, Role)), None)
            if role is None:
                raise TypeError(f"{type(self).__name__}.{name} has no role; annotate it with SHAPE or KNOB")
            yield path, value, role


class Component(Frozen):
    """A named, pluggable part of a configuration. The default of `name` is its only valid value."""

    name: Name

    @field_validator("name")
    @classmethod
    def _own_name(cls, name: str) -> str:
        own = cls.model_fields["name"].default
        if name != own:
            raise complaint(f"must be {own!r}, got {name!r}")
        return name

    def knob(self, name: str, knobs: Mapping[str, Tensor]) -> Tensor:
        """The member's value of a knob; outside a cohort, the component's own value."""
        if name in knobs:
            return knobs[name]
        # A float64 scalar is exact and does not change the dtype of tensors in an operation.
        return torch.tensor(knob_value(getattr(self, name)), dtype=torch.float64)


def knob_value(value: float | None) -> float:
    """A knob as a number; None (an epoch that never comes, a schedule without an end) is infinity."""
    return math.inf if value is None else float(value)


def lookup(registry: Mapping[str, V], name: str) -> V:
    """The registry's entry.

    Raises:
        PydanticCustomError: there is no such entry; the message lists the choices.
    """
    try:
        return registry[name]
    except UnknownName as error:
        raise complaint(str(error)) from None


def chosen_from(registry: Mapping[str, Any], key: str = "name") -> BeforeValidator:
    """Marks a field that accepts any component of a registry, chosen by its `name` or another key.

    A registry has a default instance for each name. A dictionary is validated by the class of that instance.
    """

    def parse(value: Any) -> Any:
        if type(value) in map(type, registry.values()):
            return value
        if not isinstance(value, Mapping) or not isinstance(value.get(key), str):
            raise complaint(
                f"must be a table with a {key!r} ({', '.join(sorted(registry))}), got {reprlib.repr(value)}"
            )
        return type(lookup(registry, value[key])).model_validate(dict(value))

    return BeforeValidator(parse)


def registered(registry: Registry[Any]) -> Any:
    """A class decorator that adds a component's default instance to a registry."""

    def add(cls: type[Component]) -> type[Component]:
        default = cls()  # pyright: ignore[reportCallIssue]  # subclasses give every field a default
        registry.add(default.name, default)
        return cls

    return add
