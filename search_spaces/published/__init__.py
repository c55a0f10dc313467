"""Holds the numbers printed in the papers, one TOML file a paper. Imports nothing of this project.

    [tables.sg_table2]
    source = "Silent Gradients, Table 2"

    [[tables.sg_table2.numbers]]
    labels = { method = "Gaussian, silent" }
    metric = "bits_per_dim"
    value = 6.718

A study names its table (`Study.published`). The labels pick one row of the study's own table.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError, with_config

FOLDER = Path(__file__).parent
Real = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Count = Annotated[int, Field(strict=True, ge=1)]


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True, kw_only=True)
class Number:
    """One printed number.

    labels: of the study's row that it belongs to, by the names in `Study.compare`.
    metric: as in results, and in their units.
    stderr, n: the standard error of the mean and the number of trainings, where the paper gives them.
    epoch: after which it holds, where it is not the last.
    source: paper and table; that of the whole table unless the number has its own.
    """

    labels: Mapping[str, str | int | float]
    metric: str
    value: Real
    stderr: Real | None = None
    n: Count | None = None
    epoch: Count | None = None
    note: str = ""
    source: str = ""


def _distinct(numbers: tuple[Number, ...]) -> tuple[Number, ...]:
    seen = []
    for index, number in enumerate(numbers):
        place = (number.labels, number.metric, number.epoch)
        if place in seen:
            raise ValueError(f"number {index} has the same labels, metric and epoch as an earlier one")
        seen.append(place)
    return numbers


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True, kw_only=True)
class _Table:
    source: str
    numbers: Annotated[tuple[Number, ...], AfterValidator(_distinct)]


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True, kw_only=True)
class _Paper:
    tables: dict[str, _Table]


_PAPER = TypeAdapter(_Paper)


def published(name: str) -> tuple[Number, ...]:
    """The numbers of a table, in the order of its file.

    Raises:
        KeyError: no file has a table of that name; the message lists those there are.
        ValueError: a file is not as it should be; the message names the entry.
    """
    tables = _shipped()
    if name not in tables:
        raise KeyError(f"unknown published table {name!r}; choose from {sorted(tables)}")
    return tables[name]


@cache
def _shipped() -> dict[str, tuple[Number, ...]]:
    return read(FOLDER)


def read(folder: Path) -> dict[str, tuple[Number, ...]]:
    """The tables of all files in a folder, by name; raises ValueError as `published` does."""
    tables: dict[str, tuple[Number, ...]] = {}
    for path in sorted(folder.glob("*.toml")):
        for name, table in _paper(path).tables.items():
            if name in tables:
                raise ValueError(f"{path.name}: another file has a table {name!r}, too")
            tables[name] = tuple(replace(number, source=number.source or table.source) for number in table.numbers)
    return tables


def _paper(path: Path) -> _Paper:
    try:
        return _PAPER.validate_python(tomllib.loads(path.read_text(encoding="utf-8")))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path.name}: {error}") from None
    except ValidationError as error:
        wrong = (f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors(include_url=False))
        raise ValueError(f"{path.name}: {'; '.join(wrong)}") from None
