"""Derives sweeps from others: reduced to a scale, or searched.

A search turns each numeric axis of a grid into a range between its printed ends.
"""

import dataclasses
import itertools
import math
from collections.abc import Mapping
from typing import Any, get_args

from search_spaces.scale import SCALES, Scale
from search_spaces.space import Axis, Choice, Dimension, Sampler, Search, Study, Sweep, Uniform, Variants

BATCH = 9
"""How many suggestions are asked for at a time: enough for two rungs of successive halving by 3."""
FEW = 3
"""Most seeds of a suggestion: with more seeds there would be fewer suggestions."""


def command_words(name: str) -> tuple[str, ...]:
    """The arguments of `sweeps.run` that run a sweep: `quickstart-smoke` is run as `quickstart --scale smoke`.

    Any other name is returned as it is.
    """
    original, *parts = name.split("-")
    options = {**dict.fromkeys(SCALES, "--scale"), **dict.fromkeys(get_args(Sampler), "--search")}
    if any(part not in options for part in parts):
        return (name,)
    return (original, *(word for part in parts for word in (options[part], part)))


def reduced(sweep: Sweep, scale: Scale, seeds: int | None = None) -> Sweep:
    """A sweep at a scale, under a new name, so that its results never mix with those of the full sweep.

    seeds: the number of seeds that studies get later (`reseeded`), for the statement; None if they get none.
    """
    stated = scale if seeds is None else dataclasses.replace(scale, seeds=max(scale.seeds, seeds))
    return dataclasses.replace(
        sweep,
        name=f"{sweep.name}-{scale.name}",
        title=f"{sweep.title} (reduced: {stated.statement})",
        studies=tuple(dataclasses.replace(reduced_study(study, scale), scale=stated) for study in sweep.studies),
    )


def reduced_study(study: Study, scale: Scale) -> Study:
    """A study at a scale: fewer values of numeric axes, fewer suggestions and fewer seeds."""
    grid = tuple(
        dataclasses.replace(axis, values=_thinned(axis.values, scale.values)) if isinstance(axis, Axis) else axis
        for axis in study.grid
    )
    search = study.search
    if search is not None:
        members = min(search.members, 2 * scale.values)
        search = dataclasses.replace(search, members=members, batch=min(search.batch, members))
    return dataclasses.replace(study, grid=grid, search=search, seeds=study.seeds[: scale.seeds], scale=scale)


def _thinned(values: tuple[Any, ...], count: int) -> tuple[Any, ...]:
    """At most `count` values, evenly chosen with both ends (the first if one); all values if some are not numbers."""
    if len(values) <= count or not all(isinstance(value, int | float) for value in values):
        return values
    if count == 1:
        return values[:1]
    return tuple(values[round(index * (len(values) - 1) / (count - 1))] for index in range(count))


def reseeded(sweep: Sweep, seeds: int) -> Sweep:
    """A sweep in which every study has this number of seeds.

    The seeds are 0 to seeds - 1, except where winners are compared on other seeds than those that chose them. There,
    the studies that choose keep their own seeds. The studies that compare have their own first, then the next numbers
    that have chosen nothing.
    """
    studies = {study.name: study for study in sweep.studies}
    choose = choosing(sweep)

    def of(study: Study) -> Study:
        if study.name in choose:
            return study
        if not (above := _chose_apart(studies, study)):
            return dataclasses.replace(study, seeds=tuple(range(seeds)))
        chose = {seed for name in above for seed in studies[name].seeds}
        free = (seed for seed in itertools.count() if seed not in chose and seed not in study.seeds)
        return dataclasses.replace(study, seeds=tuple(itertools.islice(itertools.chain(study.seeds, free), seeds)))

    return dataclasses.replace(sweep, studies=tuple(map(of, sweep.studies)))


def choosing(sweep: Sweep) -> set[str]:
    """The studies that choose, directly or not, for a study with other seeds."""
    studies = {study.name: study for study in sweep.studies}
    return set().union(*(_chose_apart(studies, study) for study in sweep.studies))


def _chose_apart(studies: Mapping[str, Study], study: Study) -> set[str]:
    """The studies that choose for a study, directly or not, if it has none of their seeds; otherwise empty."""
    above: set[str] = set()
    waiting = [study]
    while waiting:
        new = {winner.study for winner in waiting.pop().takes} - above
        above |= new
        waiting += [studies[name] for name in new]
    chose = {seed for name in above for seed in studies[name].seeds}
    return set() if chose & set(study.seeds) else above


def searched(sweep: Sweep, sampler: Sampler, budget: int | None, halving: int, *, all_seeds: bool = False) -> Sweep:
    """A sweep whose studies are searched, under a new name, so that its results never mix with those of the grids.

    Args:
        sweep: the sweep to search.
        sampler: the name of an Optuna sampler.
        budget: largest number of members of each searched study, with all seeds, but at least one suggestion a row;
            None for as many as its grid has.
        halving: only the best 1/halving of a batch train on at each rung; 1 stops none early.
        all_seeds: whether every suggestion has all seeds of its study; otherwise it has at most `FEW`.
    """
    return dataclasses.replace(
        sweep,
        name=f"{sweep.name}-{sampler}",
        title=f"{sweep.title} (searched by {sampler})",
        studies=tuple(_searched(study, sampler, budget, halving, all_seeds) for study in sweep.studies),
    )


def _searched(study: Study, sampler: Sampler, budget: int | None, halving: int, all_seeds: bool) -> Study:
    """A study with a search in each row of its table; unchanged if it has only rows.

    Axes of rows stay a grid: compared variants, axes by which the study takes from winners, axes with one value, and
    axes on which the condition of a row depends. All rows get the same budget.
    """
    if study.search is not None:
        search = dataclasses.replace(study.search, sampler=sampler, halving=halving)
        if budget is None:
            return dataclasses.replace(study, search=search)
        of_row = budget // len(list(study.cells()))
        few, members = _shared(of_row, study, all_seeds)
        return dataclasses.replace(study, search=dataclasses.replace(search, members=members), seeds=few)
    rows = _rows(study)
    space = tuple(_dimension(axis) for axis in study.grid if axis not in rows)
    if not space:
        return study
    labels = {axis.key for axis in rows}
    cells = len(list(dataclasses.replace(study, grid=rows).cells()))
    if budget is None:
        budget = len(list(study.cells())) * len(study.seeds)
    few, suggestions = _shared(budget // cells, study, all_seeds)
    return dataclasses.replace(
        study,
        grid=rows,
        seeds=few,
        search=Search(
            space=space, members=suggestions, batch=min(BATCH, suggestions), sampler=sampler, halving=halving
        ),
        compare=tuple(name for name in study.compare if name in labels),
        figures=(),
        claims=tuple(claim for claim in study.claims if {*claim.better, *claim.worse} <= labels),
        published=study.published if set(study.compare) <= labels else None,
    )


def _shared(members: int, study: Study, all_seeds: bool) -> tuple[tuple[int, ...], int]:
    """The seeds of a searched study, and how many suggestions `members` of a row are then enough for.

    Fewer seeds where there would be less than a batch of suggestions, unless all seeds are asked for.
    """
    few = study.seeds if all_seeds else study.seeds[: max(1, min(FEW, members // BATCH))]
    return few, max(1, members // len(few))


def _rows(study: Study) -> tuple[Axis | Variants, ...]:
    """The axes that stay in the grid."""
    rows: list[Axis | Variants] = []
    conditions: set[str] = set()
    for axis in reversed(study.grid):  # a condition names an axis that stands earlier
        if _is_row(axis, study) or axis.key in conditions:
            rows.append(axis)
            conditions |= {axis.when[0]} if axis.when else set()
    return tuple(reversed(rows))


def _is_row(axis: Axis | Variants, study: Study) -> bool:
    matched = {label for winner in study.takes for label in winner.match}
    if isinstance(axis, Variants):
        return axis.key in study.compare or axis.key in matched
    return len(axis.values) == 1 or axis.key in matched


def _dimension(axis: Axis | Variants) -> Dimension:
    if isinstance(axis, Variants) or not all(type(value) in (int, float) for value in axis.values):
        return axis if isinstance(axis, Variants) else Choice(axis.path, axis.values, axis.when)
    low, high = min(axis.values), max(axis.values)
    whole = all(isinstance(value, int) for value in axis.values)
    return Uniform(axis.path, low, high, log=low > 0 and math.log10(high / low) >= 1, whole=whole, when=axis.when)
