"""The language of search spaces: a Study is a base configuration and what varies in it; a Sweep is a set of studies.

Configurations are plain nested dictionaries here, with the field names of `trainables.config.TrainingConfig`; they are
validated when a sweep is planned. A patch is merged into a configuration level by level, except that a table which
names its kind (`name` or `family`) replaces the one that was there, since its other fields belong to that kind.
"""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Config = dict[str, Any]
_NAME = re.compile(r"[a-z0-9][a-z0-9_]*(/[a-z0-9][a-z0-9_]*)*")


def merge(base: Mapping[str, Any], patch: Mapping[str, Any]) -> Config:
    """`base` with `patch` merged in; neither is changed. A component that comes with its name replaces the old one."""
    result = dict(base)
    for name, value in patch.items():
        old = result.get(name)
        # Another component has other fields; another data set has the same ones.
        replaces = isinstance(value, Mapping) and ("name" in value or "family" in value) and name != "data"
        result[name] = (
            merge(old, value) if isinstance(value, Mapping) and isinstance(old, Mapping) and not replaces else value
        )
    return result


def nested(path: str, value: Any) -> Config:
    """The patch that sets one dotted path."""
    for part in reversed(path.split(".")):
        value = {part: value}
    return value


@dataclass(frozen=True)
class Axis:
    """A grid axis: the values of one field, given by its dotted path."""

    path: str
    values: tuple[Any, ...]

    def __post_init__(self) -> None:
        if not self.values:
            raise ValueError(f"axis {self.path} needs at least one value")

    def cells(self) -> Iterator[tuple[dict[str, Any], Config]]:
        """(labels, patch) of each value."""
        for value in self.values:
            yield {self.path: value}, nested(self.path, value)


@dataclass(frozen=True)
class Variants:
    """A grid axis of named patches, for fields that change together."""

    name: str
    patches: Mapping[str, Config]

    def cells(self) -> Iterator[tuple[dict[str, Any], Config]]:
        """(labels, patch) of each variant."""
        for label, patch in self.patches.items():
            yield {self.name: label}, dict(patch)


@dataclass(frozen=True)
class Uniform:
    """A searched field, uniform in [low, high], or in its logarithm."""

    path: str
    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        if not self.low < self.high or (self.log and self.low <= 0):
            raise ValueError(f"{self.path} needs low < high, positive if logarithmic, got [{self.low}, {self.high}]")


def LogUniform(path: str, low: float, high: float) -> Uniform:  # noqa: N802  # named as a distribution
    """A searched field, uniform in its logarithm."""
    return Uniform(path, low, high, log=True)


@dataclass(frozen=True)
class Choice:
    """A searched field with finitely many values."""

    path: str
    values: tuple[Any, ...]


@dataclass(frozen=True, kw_only=True)
class Search:
    """A search over continuous or categorical fields in place of a grid.

    sampler: an Optuna sampler's short name. members: how many suggestions to train. batch: how many are asked for at a
    time and trained together; results of a batch inform the next. seed: of the sampler.
    """

    space: tuple[Uniform | Choice, ...]
    members: int
    batch: int
    sampler: Literal["tpe", "random"] = "tpe"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.members < 1 or self.batch < 1:
            raise ValueError(f"a search needs members >= 1 and batch >= 1, got {self.members} and {self.batch}")


@dataclass(frozen=True, kw_only=True)
class Study:
    """One comparison: a table or figure.

    name: unique in its sweep; letters, digits, underscores, with slashes between parts.
    source: the table or figure it stands for.
    base: what all members share. grid: the axes, crossed with the seeds; or else a search.
    metric, mode: what makes a configuration better.
    compare: the labels of a table's rows; the remaining axes are chosen by the metric within each row.
    heatmap: two paths, the rows and columns of a grid of cells, where the study is one.
    """

    name: str
    title: str
    source: str
    base: Config
    grid: tuple[Axis | Variants, ...] = ()
    seeds: tuple[int, ...] = (0,)
    search: Search | None = None
    metric: str = "bits_per_dim"
    mode: Literal["min", "max"] = "min"
    compare: tuple[str, ...] = ()
    heatmap: tuple[str, str] | None = None
    expectation: str = ""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"study names are lower-case letters, digits, underscores and slashes, got {self.name!r}")
        if not self.seeds or (self.search is not None and self.grid):
            raise ValueError(f"study {self.name!r} needs one or more seeds, and either a grid or a search")

    def cells(self) -> Iterator[tuple[dict[str, Any], Config]]:
        """(labels, configuration without a seed) of every cell of the grid."""
        for combination in itertools.product(*(axis.cells() for axis in self.grid)):
            labels, config = {}, dict(self.base)
            for own_labels, patch in combination:
                labels |= own_labels
                config = merge(config, patch)
            yield labels, config


@dataclass(frozen=True)
class Sweep:
    """A set of studies that are run together."""

    name: str
    title: str
    studies: Sequence[Study] = field(default_factory=tuple)

    def __post_init__(self) -> None:
        names = [study.name for study in self.studies]
        if not _NAME.fullmatch(self.name) or "/" in self.name:
            raise ValueError(f"sweep names are lower-case letters, digits and underscores, got {self.name!r}")
        if len(set(names)) != len(names):
            raise ValueError(f"sweep {self.name!r} has two studies of one name")
