"""Describes search spaces: a Study is a base configuration with fields that vary; a Sweep is a set of studies.

Configurations are plain nested dictionaries with the field names of `trainables.config.TrainingConfig`. They are
validated when a sweep is planned. A patch is merged into a configuration level by level. A table that names its kind
(`name` or `family`) replaces the old table instead, because its other fields belong to that kind; `data` is merged.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from search_spaces.figures import Figure, Heatmap
from search_spaces.scale import Config, Scale

Labels = dict[str, Any]
STUDY_NAME = re.compile(r"[a-z0-9][a-z0-9_]*(/[a-z0-9][a-z0-9_]*)*")
SWEEP_NAME = re.compile(r"[a-z0-9][a-z0-9_]*(-[a-z0-9]+)*")
"""Each hyphen is followed by how the sweep was derived from the one before it: `paper_grid-smoke`."""


def merge(base: Mapping[str, Any], patch: Mapping[str, Any]) -> Config:
    """`base` with `patch` merged in; changes neither. A component with a name replaces the old one, except `data`."""
    result = dict(base)
    for name, value in patch.items():
        old = result.get(name)
        # Another component has other fields; another data set has the same fields.
        replaces = isinstance(value, Mapping) and ("name" in value or "family" in value) and name != "data"
        result[name] = (
            merge(old, value) if isinstance(value, Mapping) and isinstance(old, Mapping) and not replaces else value
        )
    return result


def _check_several(what: str, **fields: object) -> None:
    """Raises TypeError if a field is not a tuple or list; a forgotten comma, as in `seeds=(3)`, is a common mistake."""
    for name, value in fields.items():
        if not isinstance(value, tuple | list):
            raise TypeError(f"{what}: {name} must be a tuple; with one entry it is written {name}=(entry,)")


def nested(path: str, value: Any) -> Config:
    """The patch that sets one dotted path."""
    for part in reversed(path.split(".")):
        value = {part: value}
    return value


When = tuple[str, tuple[Any, ...]]
"""A condition for a field to exist: the label of an earlier axis, and the values that it must have one of."""


def holds(when: When | None, labels: Mapping[str, Any]) -> bool:
    """Whether a condition is met; true if there is none."""
    return when is None or labels.get(when[0]) in when[1]


@dataclass(frozen=True)
class Axis:
    """A grid axis: the values of one field, given by its dotted path. Cells that do not meet `when` lack the axis."""

    path: str
    values: tuple[Any, ...]
    when: When | None = None

    def __post_init__(self) -> None:
        _check_several(f"axis {self.path}", values=self.values)
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
    """A grid axis of named patches, for fields that change together. Cells that do not meet `when` lack the axis."""

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
    """A searched field, uniform in [low, high]. `log`: uniform in its logarithm; `whole`: only whole numbers."""

    path: str
    low: float
    high: float
    log: bool = False
    whole: bool = False
    when: When | None = None

    def __post_init__(self) -> None:
        if not self.low < self.high or (self.log and self.low <= 0):
            raise ValueError(
                f"{self.path} needs low < high, and low > 0 if logarithmic, got low {self.low} and high {self.high}"
            )

    @property
    def key(self) -> str:
        return self.path


def LogUniform(path: str, low: float, high: float) -> Uniform:  # noqa: N802  # named like a distribution
    """A searched field, uniform in its logarithm."""
    return Uniform(path, low, high, log=True)


@dataclass(frozen=True)
class Choice:
    """A searched field with finitely many values."""

    path: str
    values: tuple[Any, ...]
    when: When | None = None

    def __post_init__(self) -> None:
        _check_several(self.path, values=self.values)

    @property
    def key(self) -> str:
        return self.path


Dimension = Uniform | Choice | Variants
"""A dimension of a search: a field, or named patches."""
Sampler = Literal["tpe", "gp", "random"]
"""Optuna's samplers that depend only on earlier trials, so that a rebuilt search makes the same suggestions."""


@dataclass(frozen=True, kw_only=True)
class Search:
    """A search over continuous or categorical fields.

    space: the dimensions; `when` may name an earlier dimension or a label of the study's grid.
    members: how many suggestions to train in each cell of the grid, each with all seeds.
    batch: how many suggestions are asked for and trained together; their results inform the next batch.
    sampler, seed: the short name of an Optuna sampler, and its seed.
    halving: successive halving within a batch: at each rung only the best 1/halving train on; 1 stops none early.
    """

    space: tuple[Dimension, ...]
    members: int
    batch: int
    sampler: Sampler = "tpe"
    seed: int = 0
    halving: int = 1

    def __post_init__(self) -> None:
        _check_several("a search", space=self.space)
        if self.members < 1 or self.batch < 1 or self.halving < 1:
            raise ValueError(
                f"a search needs members, batch and halving >= 1, got {self.members}, {self.batch} and {self.halving}"
            )


@dataclass(frozen=True)
class Winner:
    """Fields that a study takes from the best configuration of an earlier study (by the mean over seeds).

    study: the earlier study; its metric decides, on the validation images.
    fields: dotted paths of the fields.
    match: labels that both studies have; a cell takes from the best of the cells with the same values of these labels.
    when: cells that do not meet this condition take nothing.
    """

    study: str
    fields: tuple[str, ...]
    match: tuple[str, ...] = ()
    when: When | None = None

    def __post_init__(self) -> None:
        _check_several(f"the winner of {self.study!r}", fields=self.fields, match=self.match)


@dataclass(frozen=True)
class Relation:
    """A relation of two labels of the same row, for a claim; replaces a label's value."""

    sign: Literal["<", "=", ">"]
    label: str

    def holds(self, value: Any, labels: Mapping[str, Any]) -> bool:
        """Whether the relation holds in a row with these labels; false if one of both labels is missing."""
        other = labels.get(self.label)
        if value is None or other is None:
            return False
        return {"<": value < other, "=": value == other, ">": value > other}[self.sign]


@dataclass(frozen=True)
class Claim:
    """A paper's claim that one row of a table is better than another, to be tested over paired seeds.

    better, worse: labels that pick one row each, by value or by `Relation`; if several rows fit, the study's metric
        chooses.
    metric: the metric to compare; None for the study's own metric.
    reaches: a value of the metric; if given, the first epoch that reaches it is compared instead of the last value.
    margin: the largest difference that does not matter, in units of the metric; None for a tenth of the difference that
        the paper prints, else 0.01 bits/dim; without any of these the claim has no margin.
    """

    text: str
    better: Mapping[str, Any]
    worse: Mapping[str, Any]
    metric: str | None = None
    reaches: float | None = None
    margin: float | None = None

    def __post_init__(self) -> None:
        if self.margin is not None and not self.margin > 0:
            raise ValueError(f"a claim's margin is above 0, got {self.margin}")


@dataclass(frozen=True, kw_only=True)
class Study:
    """One comparison: a table or figure.

    name: unique in its sweep; lower-case letters, digits and underscores, with slashes between parts.
    source: the table or figure that it reproduces.
    base: the configuration that all members share.
    grid: the axes, crossed with the seeds.
    search: a search in every cell of the grid.
    takes: fields taken from the best configurations of earlier studies, which are trained first.
    metric, mode: the metric that ranks configurations, and whether less or more is better.
    compare: the labels of a table's rows; within each row the metric chooses the values of the other axes.
    columns: the metrics in its table; if empty, a default with the study's own metric first.
    figures: the figures to draw.
    across: the title of a table that several studies of a sweep form together, for example one for each data set; the
        report compares their rows over all of them.
    published: name of the table in `search_spaces/published/` with the paper's numbers, by the labels of `compare`.
    claims: claims of the paper, to be tested.
    expectation: the expected result, in words.
    scale: the reduction of the study; None for the full study.
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
    across: str = ""
    published: str | None = None
    claims: tuple[Claim, ...] = ()
    expectation: str = ""
    scale: Scale | None = None

    def __post_init__(self) -> None:
        if not STUDY_NAME.fullmatch(self.name):
            raise ValueError(
                f"a study's name may have lower-case letters, digits, underscores and slashes, got {self.name!r}"
            )
        _check_several(
            f"study {self.name!r}",
            grid=self.grid,
            seeds=self.seeds,
            takes=self.takes,
            compare=self.compare,
            columns=self.columns,
            figures=self.figures,
            claims=self.claims,
        )
        if not self.seeds:
            raise ValueError(f"study {self.name!r} needs one or more seeds")

    def cells(self) -> Iterator[tuple[Labels, Config]]:
        """(labels, configuration) of every cell of the grid, without scale and seed."""
        found: list[tuple[Labels, Config]] = [({}, dict(self.base))]
        for axis in self.grid:
            found = [
                (labels | own, merge(config, patch)) for labels, config in found for own, patch in axis.cells(labels)
            ]
        yield from found

    def suggested(self, labels: Labels, config: Config, values: Mapping[str, Any]) -> tuple[Labels, Config]:
        """(labels, configuration) of a cell with a suggestion applied. values: fields by path, labels of variants."""
        for dimension in self.search.space if self.search else ():
            if dimension.key in values:
                value = values[dimension.key]
                patch = dimension.patches[value] if isinstance(dimension, Variants) else nested(dimension.key, value)
                config = merge(config, patch)
        return labels | dict(values), config

    @property
    def heatmap(self) -> tuple[str, str] | None:
        """The labels of rows and columns of its first heatmap; None if there is none."""
        return next(((f.rows, f.columns) for f in self.figures if isinstance(f, Heatmap)), None)

    def reduced(self, config: Config) -> Config:
        """A configuration reduced to the study's scale."""
        return config if self.scale is None else self.scale.config(config)


@dataclass(frozen=True)
class Sweep:
    """A set of studies that are run together.

    folder: the user's own folder in which it was found; None for the sweeps of this package.
    """

    name: str
    title: str
    studies: Sequence[Study] = field(default_factory=tuple)
    folder: str | None = None

    def __post_init__(self) -> None:
        _check_several(f"sweep {self.name!r}", studies=self.studies)
        names = [study.name for study in self.studies]
        for index, study in enumerate(self.studies):
            for winner in study.takes:
                if winner.study not in names[:index]:
                    raise ValueError(
                        f"study {study.name!r} takes values from {winner.study!r}, which must come before it"
                    )
            self._check_table(study)
        if not SWEEP_NAME.fullmatch(self.name):
            raise ValueError(f"a sweep's name may have lower-case letters, digits and underscores, got {self.name!r}")
        if len(set(names)) != len(names):
            raise ValueError(f"sweep {self.name!r} has two studies with the same name; rename one of them")

    def _check_table(self, study: Study) -> None:
        """Raises ValueError if a study has other rows than the first study of its table (`Study.across`)."""
        first = next(other for other in self.studies if other.across == study.across)
        if study.across and (study.compare != first.compare or not study.compare):
            raise ValueError(
                f"studies {first.name!r} and {study.name!r} form the table {study.across!r}, so they need the same "
                f"compare, got {first.compare} and {study.compare}"
            )

    @property
    def words(self) -> tuple[str, ...]:
        """The words that name it in a command line."""
        return (self.name,) if self.folder is None else (self.name, "--studies", self.folder)
