"""How much tuning each row of a table needs: the result after n configurations, and the loss away from the best one.

A row has several configurations (learning rates, temperatures). The loss of a configuration is the mean of the study's
metric over seeds, with its sign changed if more is better. A configuration that lost a seed (failed, stopped early, not
finite) counts as tried and as worse than all others.

The tuning curve is the median of the best loss among n configurations that are drawn independently (Lourie et al. 2024;
Dodge et al. 2019 have the mean). Its band follows from a simultaneous confidence band of the distribution of losses. So
it assumes that the row's configurations are independent draws from the space that somebody would search. Random search
is that. A grid is not random, but spreads over its range: there the band says how far so few points can be trusted.
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from opda.nonparametric import EmpiricalDistribution

from search_spaces.space import Study
from sweeps.analysis.cells import Cell, groups, ranked
from sweeps.analysis.metrics import Mode
from sweeps.analysis.statistics import CONFIDENCE, Mean, paired

SEVERAL = 3
"""The configurations that a row needs."""


@dataclass(frozen=True)
class TunedRow:
    """A row with several configurations that have ended.

    cells: in the order of the plan. losses: one for each cell, lower is better; infinite if it lost a seed.
    best: the cell with the lowest loss.
    """

    labels: Mapping[str, Any]
    cells: tuple[Cell, ...]
    losses: tuple[float, ...]
    best: Cell

    @property
    def tuned(self) -> tuple[str, ...]:
        """The labels that its configurations differ in."""
        names = dict.fromkeys(name for cell in self.cells for name in cell.labels)
        return tuple(name for name in names if len({repr(cell.labels.get(name)) for cell in self.cells}) > 1)

    @property
    def failed(self) -> int:
        """Configurations that lost a seed."""
        return sum(math.isinf(loss) for loss in self.losses)


def unsuited(study: Study) -> str:
    """Why a study's history is no sample of its space; empty if it is one."""
    if study.search is None or (study.search.sampler == "random" and study.search.halving == 1):
        return ""
    if study.search.halving > 1:
        return "early stopping leaves most configurations without a final result"
    return (
        f"the sampler {study.search.sampler!r} chooses configurations by earlier results, so they are no random draws"
    )


def tuned_rows(study: Study, found: Sequence[Cell]) -> list[TunedRow]:
    """The rows of a study with several configurations; none if there is only one such row."""
    if not study.compare or unsuited(study):
        return []
    rows: list[TunedRow] = []
    for group in groups(study.compare, found):
        cells = tuple(cell for cell in group if cell.ended)
        losses = tuple(_loss(study, cell) for cell in cells)
        if len(cells) >= SEVERAL and not all(map(math.isinf, losses)):
            labels = {name: group[0].labels[name] for name in study.compare if name in group[0].labels}
            rows.append(TunedRow(labels, cells, losses, ranked(study, cells)[0]))
    return rows if len(rows) > 1 else []


def _loss(study: Study, cell: Cell) -> float:
    average = cell.average(study.metric)
    if average is None or average.n < len(cell.ended):
        return math.inf
    return average.value if study.mode == "min" else -average.value


# --- Performance over the number of configurations tried --------------------------------------------------------------


@dataclass(frozen=True)
class TuningCurve:
    """The best loss among n configurations, for n = 1, 2, …: its median, and the band that contains the true medians.

    The band holds for all n together with probability `CONFIDENCE`. It is infinite where the data do not limit it.
    """

    median: np.ndarray
    low: np.ndarray
    high: np.ndarray


def tuning_curve(losses: Sequence[float], confidence: float = CONFIDENCE) -> TuningCurve:
    """The tuning curve of one or more losses, up to their number; infinite losses are of failed configurations."""
    tried = np.arange(1, len(losses) + 1)
    with warnings.catch_warnings():
        # With equal losses the band is wider than it need be, which is no error.
        warnings.filterwarnings("ignore", "Duplicates detected in ys", RuntimeWarning)
        # The Kolmogorov-Smirnov band: exact for any number of losses, and without random numbers.
        low, point, high = EmpiricalDistribution.confidence_bands(np.asarray(losses, float), confidence, method="ks")
    # The lower bound of the distribution function is the upper bound of its quantiles.
    curves = [one.quantile_tuning_curve(tried, minimize=True) for one in (point, high, low)]
    return TuningCurve(*(np.asarray(curve, float) for curve in curves))


# --- Sensitivity ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sensitivity:
    """What a row loses away from its best configuration, in units of the metric, at least 0.

    median: at its median configuration, over paired seeds; None if that configuration lost a seed.
    steps: by tuned label, at the worse neighbour of the best value in the grid; infinite if that lost a seed.
    shared: at the one setting that is best for all rows together (Adkins et al. 2024); None if no setting is in all
        rows.
    """

    median: Mean | None
    steps: Mapping[str, float]
    shared: float | None


def sensitivities(study: Study, rows: Sequence[TunedRow]) -> list[Sensitivity]:
    """The sensitivity of each row."""
    shared = _shared_setting(study, rows)
    return [
        Sensitivity(
            _median_loss(study, row),
            {name: step for name in row.tuned if (step := _step(row, name)) is not None},
            None if shared is None else _settings(study, row)[shared] - min(row.losses),
        )
        for row in rows
    ]


def _median_loss(study: Study, row: TunedRow) -> Mean | None:
    order = sorted(range(len(row.losses)), key=row.losses.__getitem__)
    median = order[(len(order) - 1) // 2]  # the better one of the two in the middle, as in the tuning curve
    if math.isinf(row.losses[median]):
        return None
    mode: Mode = study.mode
    pairs = paired(row.best.values(study.metric), row.cells[median].values(study.metric), mode)
    return pairs.gain if pairs else None


def _step(row: TunedRow, name: str) -> float | None:
    """The loss at the worse neighbour of the best configuration in one numeric label; None if it has no neighbour."""
    rest = {key: value for key, value in row.best.labels.items() if key != name}
    line = {
        cell.labels[name]: loss
        for cell, loss in zip(row.cells, row.losses, strict=True)
        if isinstance(cell.labels.get(name), int | float)
        and {key: value for key, value in cell.labels.items() if key != name} == rest
    }
    values = sorted(line)
    if len(values) < 2 or row.best.labels.get(name) not in line:
        return None
    at = values.index(row.best.labels[name])
    return max(line[value] for value in values[max(0, at - 1) : at + 2]) - min(row.losses)


def _settings(study: Study, row: TunedRow) -> dict[str, float]:
    """The losses of a row by setting: the labels that the study does not compare."""
    return {
        repr({name: value for name, value in cell.labels.items() if name not in study.compare}): loss
        for cell, loss in zip(row.cells, row.losses, strict=True)
    }


def _shared_setting(study: Study, rows: Sequence[TunedRow]) -> str | None:
    """The setting with the least mean loss above each row's best, among the settings that all rows have."""
    tables = [_settings(study, row) for row in rows]
    common = [name for name in tables[0] if all(name in table for table in tables)]
    above = {name: sum(t[name] - min(t.values()) for t in tables) for name in common}
    finite = {name: value for name, value in above.items() if math.isfinite(value)}
    return min(finite, key=finite.__getitem__) if finite else None
