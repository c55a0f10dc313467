"""The rows of a study's table: configurations grouped and picked by their labels."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from search_spaces.space import Relation, Study

RIVALS = 2
"""The most rivals of a row's best configuration that are confirmed with it."""
CHOOSING = 2
"""The seeds that must have chosen before anything counts as within the noise."""


class Labelled(Protocol):
    """A configuration with the values that distinguish it in its study."""

    @property
    def labels(self) -> Mapping[str, Any]: ...


L = TypeVar("L", bound=Labelled)


def groups(names: Sequence[str], found: Iterable[L]) -> list[list[L]]:
    """Groups configurations by the values of some labels; groups are in the order of their first configuration."""
    together: dict[str, list[L]] = {}
    for each in found:
        together.setdefault(_values(names, each.labels), []).append(each)
    return list(together.values())


def matching(found: Iterable[L], labels: Mapping[str, Any]) -> list[L]:
    """The configurations that have these labels, each a value or a relation to another label."""
    return [each for each in found if all(_has(each.labels, name, value) for name, value in labels.items())]


def on_diagonal(study: Study, labels: Mapping[str, Any]) -> bool:
    """Whether a configuration has two equal values in the study's heatmap; False if there is none."""
    return study.heatmap is not None and labels.get(study.heatmap[0]) == labels.get(study.heatmap[1])


def confirmed_rows(study: Study) -> tuple[str, ...]:
    """The labels of the rows whose best configurations are confirmed; empty if all configurations are one row.

    They are those of the table, except where its rows are the fields of a heatmap: confirming every field would train
    the whole study again, and decide nothing more.
    """
    return () if study.heatmap and set(study.heatmap) == set(study.compare) else study.compare


def most_finalists(study: Study, cells: Sequence[Mapping[str, Any]]) -> int:
    """The largest number of finalists that a study can have.

    Args:
        study: the study.
        cells: the labels of the cells of its grid.
    """
    configurations = len(cells) * (study.search.members if study.search else 1)
    names = confirmed_rows(study)
    searched = {dimension.key for dimension in study.search.space} if study.search else set[str]()
    rows = configurations if searched & {*names} else len({_values(names, labels) for labels in cells})
    of_row = 1 + (RIVALS if len(study.seeds) >= CHOOSING else 0)
    # Where labels of rows pick, the best is the best of a row.
    picked = [_used(side) for claim in study.claims for side in (claim.better, claim.worse)]
    picked += [{*study.heatmap}] if study.heatmap else []
    return min(configurations, rows * of_row + sum(not labels <= {*names} for labels in picked))


def _used(labels: Mapping[str, Any]) -> set[str]:
    """The names of the labels that pick a side of a claim."""
    return {*labels, *(value.label for value in labels.values() if isinstance(value, Relation))}


def _values(names: Sequence[str], labels: Mapping[str, Any]) -> str:
    return repr([labels.get(name) for name in names])


def _has(labels: Mapping[str, Any], name: str, value: Any) -> bool:
    own = labels.get(name)
    return value.holds(own, labels) if isinstance(value, Relation) else own == value
