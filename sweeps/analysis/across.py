"""Compares rows over the studies of one table, for example one study for each data set (`Study.across`).

After rliable (Agarwal et al. 2021): the interquartile mean of normalized scores, the probability of improvement, and
intervals from a bootstrap that draws seeds within each study.

Shapes. R rows, S seeds of a study (studies may differ), B bootstrap samples. A score is the study's metric, with its
sign changed if less is better: higher is better.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from search_spaces.space import Study
from sweeps.analysis.cells import Cell, compared
from sweeps.analysis.statistics import CONFIDENCE

SAMPLES = 2000
"""Bootstrap samples."""
FEWEST_SEEDS = 3
"""The seeds that each study needs for an interval."""

Scores = Sequence[np.ndarray]
"""Scores of all studies, each [R, S]."""


@dataclass(frozen=True)
class Estimate:
    """A number and its 95 % interval; the interval is NaN with too few seeds."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class AcrossRow:
    """One row over all studies of a table.

    iqm: the interquartile mean of its normalized scores; 0 is the worst row of a study, 1 its best.
    beaten: the probability that the best row is better on a random study and random seeds; None for the best row.
    """

    labels: Mapping[str, Any]
    iqm: Estimate
    beaten: Estimate | None


@dataclass(frozen=True)
class Across:
    """The rows that all studies have results of, the best first.

    studies: with results. seeds: the seeds that all rows finished, by study. absent: labels of rows without results in
    some study. lost: seeds that were left out, since some row did not finish them.
    """

    name: str
    studies: tuple[Study, ...]
    seeds: tuple[int, ...]
    rows: tuple[AcrossRow, ...]
    absent: tuple[Mapping[str, Any], ...]
    lost: int


def tables(studies: Sequence[Study]) -> dict[str, list[Study]]:
    """The studies of each table that has several of them, by its name."""
    found: dict[str, list[Study]] = {}
    for study in studies:
        if study.across:
            found.setdefault(study.across, []).append(study)
    return {name: together for name, together in found.items() if len(together) > 1}


def across(name: str, studies: Sequence[Study], cells_of: Mapping[str, Sequence[Cell]]) -> Across | None:
    """Compares the rows of a table's studies; None with fewer than two rows or studies that have results.

    Args:
        name: of the table.
        studies: of the table.
        cells_of: the cells of each study, by its name. A row is judged by its best cell.
    """
    best = {study.name: _rows(study, cells_of[study.name]) for study in studies}
    done = [study for study in studies if best[study.name]]
    everywhere = list(dict.fromkeys(row for study in done for row in best[study.name]))
    common = [row for row in everywhere if all(row in best[study.name] for study in done)]
    scores, lost = [], 0
    for study in done:
        values = [best[study.name][row].values(study.metric) for row in common]
        seeds = sorted(set.intersection(*map(set, values))) if values else []
        lost += len(set().union(*values)) - len(seeds)
        scores.append((1 if study.mode == "max" else -1) * np.array([[own[seed] for seed in seeds] for own in values]))
    if len(done) < 2 or len(common) < 2 or any(one.shape[1] == 0 for one in scores):
        return None
    labels = {row: _labels(done[0], best[done[0].name][row]) for row in common}
    return Across(
        name=name,
        studies=tuple(done),
        seeds=tuple(one.shape[1] for one in scores),
        rows=_compared([labels[row] for row in common], scores),
        absent=tuple(
            next(_labels(study, best[study.name][row]) for study in done if row in best[study.name])
            for row in everywhere
            if row not in common
        ),
        lost=lost,
    )


def _labels(study: Study, cell: Cell) -> dict[str, Any]:
    return {name: cell.labels[name] for name in study.compare if name in cell.labels}


def _rows(study: Study, found: Sequence[Cell]) -> dict[str, Cell]:
    """The best cell of each row that has results, by the text of the row's labels."""
    return {repr(_labels(study, cell)): cell for cell in compared(study, found) if cell.values(study.metric)}


def _compared(labels: Sequence[Mapping[str, Any]], scores: Scores) -> tuple[AcrossRow, ...]:
    scaled = normalized(scores)
    iqms = bootstrapped(scaled, interquartile_mean)
    order = sorted(range(len(labels)), key=lambda row: -iqms[row].value)
    first = order[0]
    better = bootstrapped(scores, lambda drawn: probability_of_improvement(drawn, first))
    return tuple(AcrossRow(labels[row], iqms[row], None if row == first else better[row]) for row in order)


# --- Statistics -------------------------------------------------------------------------------------------------------


def normalized(scores: Scores) -> list[np.ndarray]:
    """Scores with the mean of each study's worst row at 0 and of its best row at 1; 0 if all rows are equal."""
    found = []
    for one in scores:
        means = one.mean(1)
        spread = means.max() - means.min()
        found.append((one - means.min()) / (spread if spread > 0 else 1.0))
    return found


def interquartile_mean(scores: Scores) -> np.ndarray:
    """The mean [..., R] of the middle half of a row's scores, those of all studies and seeds together.

    Scores have the shape [..., R, S]. A quarter of the scores is cut at each end, rounded down (Agarwal et al. 2021).
    """
    pooled = np.sort(np.concatenate(list(scores), axis=-1), axis=-1)
    cut = pooled.shape[-1] // 4
    return pooled[..., cut : pooled.shape[-1] - cut].mean(-1)


def probability_of_improvement(scores: Scores, row: int) -> np.ndarray:
    """The probability [..., R] that one row is better than each row, over random seeds of both; ties count half.

    Scores have the shape [..., R, S]. The mean over studies of Mann and Whitney's U / S² (Agarwal et al. 2021).
    """
    wins = []
    for one in scores:
        own, others = one[..., row, None, :, None], one[..., :, None, :]
        wins.append(((own > others) + 0.5 * (own == others)).mean((-2, -1)))
    return np.mean(wins, axis=0)


def bootstrapped(
    scores: Scores,
    statistic: Callable[[Scores], np.ndarray],
    *,
    confidence: float = CONFIDENCE,
    samples: int = SAMPLES,
    seed: int = 0,
) -> list[Estimate]:
    """A statistic [R] with percentile intervals; seeds are drawn with replacement within each study.

    Rows share the drawn seeds, because members of one seed share weights, order of images and noise.

    Args:
        scores: [R, S] for each study.
        statistic: a function of scores with leading axes, [..., R, S] -> [..., R].
        confidence: of the interval.
        samples: how many times to draw.
        seed: of the draws.
    """
    values = statistic(scores)
    if min(one.shape[1] for one in scores) < FEWEST_SEEDS:
        return [Estimate(float(value), math.nan, math.nan) for value in values]
    generator = np.random.default_rng(seed)
    drawn = [np.moveaxis(one[:, generator.integers(0, one.shape[1], (samples, one.shape[1]))], 0, 1) for one in scores]
    tail = (1 - confidence) / 2
    low, high = np.quantile(statistic(drawn), [tail, 1 - tail], axis=0)
    return [Estimate(*map(float, each)) for each in zip(values, low, high, strict=True)]
