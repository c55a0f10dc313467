"""The language of search spaces: a Study is a base configuration and what varies in it; a Sweep is a set of studies.

Configurations are plain nested dictionaries here, with the field names of `trainables.config.TrainingConfig`; they are
validated when a sweep is planned. A patch is merged into a configuration level by level, except that a table which
names its kind (`name` or `family`) replaces the one that was there, since its other fields belong to that kind.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from search_spaces.figures import Figure, Heatmap
from search_spaces.scale import Config, Scale

Labels = dict[str, Any]
_NAME = re.compile(r"[a-z0-9][a-z0-9_]*(/[a-z0-9][a-z0-9_]*)*")
_SWEEP = re.compile(r"[a-z0-9][a-z0-9_]*(-[a-z0-9]+)*")
"""After each hyphen stands how a sweep was derived from the one named before: `paper_grid-smoke`."""


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


When = tuple[str, tuple[Any, ...]]
"""A condition: the label of an axis that stands earlier, and the values of it with which a field exists."""


def holds(when: When | None, labels: Mapping[str, Any]) -> bool:
    """Whether a condition is met, or there is none."""
    return when is None or labels.get(when[0]) in when[1]


@dataclass(frozen=True)
class Axis:
    """A grid axis: the values of one field, given by its dotted path; cells that do not meet `when` are without it."""

    path: str
    values: tuple[Any, ...]
    when: When | None = None

    def __post_init__(self) -> None:
        if not self.values:
            raise ValueError(f"axis {self.path} needs at least one value")

    def cells(self, labels: Mapping[str, Any]) -> Iterator[tuple[Labels, Config]]:
        """(labels, patch) of each value, given the labels of the axes before it."""
        if not holds(self.when, labels):
            yield {}, {}
            return
        for value in self.values:
            yield {self.path: value}, nested(self.path, value)

    @property
    def key(self) -> str:
        return self.path


@dataclass(frozen=True)
class Variants:
    """A grid axis of named patches, for fields that change together."""

    name: str
    patches: Mapping[str, Config]
    when: When | None = None

    def cells(self, labels: Mapping[str, Any]) -> Iterator[tuple[Labels, Config]]:
        """(labels, patch) of each variant, given the labels of the axes before it."""
        if not holds(self.when, labels):
            yield {}, {}
            return
        for label, patch in self.patches.items():
            yield {self.name: label}, dict(patch)

    @property
    def key(self) -> str:
        return self.name


@dataclass(frozen=True)
class Uniform:
    """A searched field, uniform in [low, high], or in its logarithm; whole numbers only where `whole`."""

    path: str
    low: float
    high: float
    log: bool = False
    whole: bool = False
    when: When | None = None

    def __post_init__(self) -> None:
        if not self.low < self.high or (self.log and self.low <= 0):
            raise ValueError(f"{self.path} needs low < high, positive if logarithmic, got [{self.low}, {self.high}]")

    @property
    def key(self) -> str:
        return self.path


def LogUniform(path: str, low: float, high: float) -> Uniform:  # noqa: N802  # named as a distribution
    """A searched field, uniform in its logarithm."""
    return Uniform(path, low, high, log=True)


@dataclass(frozen=True)
class Choice:
    """A searched field with finitely many values."""

    path: str
    values: tuple[Any, ...]
    when: When | None = None

    @property
    def key(self) -> str:
        return self.path


Dimension = Uniform | Choice | Variants
"""Of a search: a field, or named patches."""
Sampler = Literal["tpe", "gp", "random"]
"""Optuna's samplers that need to know no more than the trials so far, so that a rebuilt study goes on as it was."""


@dataclass(frozen=True, kw_only=True)
class Search:
    """A search over continuous or categorical fields.

    space: a dimension's `when` may name a dimension before it, or a label of the study's grid.
    members: how many suggestions to train in each cell of the grid, every one with all seeds.
    batch: how many are asked for at a time and trained together; results of a batch inform the next.
    sampler, seed: an Optuna sampler's short name, and its seed.
    halving: successive halving within a batch: at each rung only the best 1/halving train on; 1 stops nobody early.
    """

    space: tuple[Dimension, ...]
    members: int
    batch: int
    sampler: Sampler = "tpe"
    seed: int = 0
    halving: int = 1

    def __post_init__(self) -> None:
        if self.members < 1 or self.batch < 1 or self.halving < 1:
            raise ValueError(
                f"a search needs members, batch and halving >= 1, got {self.members}, {self.batch} and {self.halving}"
            )


@dataclass(frozen=True)
class Winner:
    """What a study takes from an earlier one: fields of its best configuration, by the mean over seeds.

    study: the earlier one; its metric decides, on the validation images.
    fields: dotted paths.
    match: labels that both studies have; each cell takes from the best of those cells that agree with it on them.
    when: cells that do not meet it take nothing.
    """

    study: str
    fields: tuple[str, ...]
    match: tuple[str, ...] = ()
    when: When | None = None


@dataclass(frozen=True)
class Relation:
    """In a claim, in place of a label's value: how it compares with another label of the same row."""

    sign: Literal["<", "=", ">"]
    label: str

    def holds(self, value: Any, labels: Mapping[str, Any]) -> bool:
        """Whether a row with these labels has it; no row without both labels does."""
        other = labels.get(self.label)
        if value is None or other is None:
            return False
        return {"<": value < other, "=": value == other, ">": value > other}[self.sign]


@dataclass(frozen=True)
class Claim:
    """What a paper says of two rows of its table, to be tested over paired seeds.

    better, worse: labels that pick one row each, by value or by `Relation`; what is left open is chosen by the study's
        metric.
    metric: None for the study's own, in its direction.
    reaches: where it is given, not the last value of the metric is compared but the first epoch that reaches this one.
    """

    text: str
    better: Mapping[str, Any]
    worse: Mapping[str, Any]
    metric: str | None = None
    reaches: float | None = None


@dataclass(frozen=True, kw_only=True)
class Study:
    """One comparison: a table or figure.

    name: unique in its sweep; letters, digits, underscores, with slashes between parts.
    source: the table or figure it stands for.
    base: what all members share. grid: the axes, crossed with the seeds. search: searched in every cell of the grid.
    takes: fields that come from the best of earlier studies, which are trained first.
    metric, mode: what makes a configuration better.
    compare: the labels of a table's rows; the remaining axes are chosen by the metric within each row.
    columns: the metrics that its table shows, the study's own first where this is empty.
    figures: what is drawn of it.
    published: name of the table in `search_spaces/published/` that has the paper's numbers, by the labels of `compare`.
    claims: what the paper says, to be tested.
    scale: None for the study as it is printed; else how it is reduced.
    """

    name: str
    title: str
    source: str
    base: Config
    grid: tuple[Axis | Variants, ...] = ()
    seeds: tuple[int, ...] = (0,)
    search: Search | None = None
    takes: tuple[Winner, ...] = ()
    metric: str = "bits_per_dim"
    mode: Literal["min", "max"] = "min"
    compare: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    figures: tuple[Figure, ...] = ()
    published: str | None = None
    claims: tuple[Claim, ...] = ()
    expectation: str = ""
    scale: Scale | None = None

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"study names are lower-case letters, digits, underscores and slashes, got {self.name!r}")
        if not self.seeds:
            raise ValueError(f"study {self.name!r} needs one or more seeds")

    def cells(self) -> Iterator[tuple[Labels, Config]]:
        """(labels, configuration without a seed) of every cell of the grid, as printed."""
        found: list[tuple[Labels, Config]] = [({}, dict(self.base))]
        for axis in self.grid:
            found = [
                (labels | own, merge(config, patch)) for labels, config in found for own, patch in axis.cells(labels)
            ]
        yield from found

    def suggested(self, labels: Labels, config: Config, values: Mapping[str, Any]) -> tuple[Labels, Config]:
        """A cell of the grid with a suggestion in it: fields by path, variants by their label."""
        for dimension in self.search.space if self.search else ():
            if dimension.key in values:
                value = values[dimension.key]
                patch = dimension.patches[value] if isinstance(dimension, Variants) else nested(dimension.key, value)
                config = merge(config, patch)
        return labels | dict(values), config

    @property
    def heatmap(self) -> tuple[str, str] | None:
        """Rows and columns of its first heatmap."""
        return next(((f.rows, f.columns) for f in self.figures if isinstance(f, Heatmap)), None)

    def reduced(self, config: Config) -> Config:
        """A configuration as this study trains it, at its scale."""
        return config if self.scale is None else self.scale.config(config)


@dataclass(frozen=True)
class Sweep:
    """A set of studies that are run together."""

    name: str
    title: str
    studies: Sequence[Study] = field(default_factory=tuple)

    def __post_init__(self) -> None:
        names = [study.name for study in self.studies]
        for index, study in enumerate(self.studies):
            for winner in study.takes:
                if winner.study not in names[:index]:
                    raise ValueError(f"study {study.name!r} needs {winner.study!r} before it in sweep {self.name!r}")
        if not _SWEEP.fullmatch(self.name):
            raise ValueError(f"sweep names are lower-case letters, digits and underscores, got {self.name!r}")
        if len(set(names)) != len(names):
            raise ValueError(f"sweep {self.name!r} has two studies of one name")
