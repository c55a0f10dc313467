"""Heatmaps: the mean of a metric over two labels."""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, ScalarFormatter

from search_spaces.figures import Heatmap
from sweeps.analysis.cells import Cell, finalists, groups, ranked, standing
from sweeps.analysis.labels import label, readable
from sweeps.analysis.metrics import direction, metric
from sweeps.analysis.numbers import number
from sweeps.report.charts import Field, HeatmapChart, told
from sweeps.report.drawing import Drawing, canvas
from sweeps.report.panels import Panel

DIAGONAL = "#D00040"
_CHARACTER = 0.062
"""The width of a digit in a field of the heatmap, in inches."""


def heatmap(figure: Heatmap, panel: Panel) -> Drawing:
    """Draws the mean of a metric over two labels, each field at its best configuration.

    Fields with equal labels are outlined, and the best field is starred.
    """
    study, shown = panel.study, figure.metric or panel.study.metric
    rows, columns = (_values(panel, path) for path in (figure.rows, figure.columns))
    grid = np.full((len(rows), len(columns)), math.nan)
    mode = direction(study, shown)
    fields = (standing(study, group) for group in groups((figure.rows, figure.columns), panel.cells))
    chosen = [cell for cell in fields if cell is not None]
    for cell in chosen:
        grid[rows.index(cell.labels[figure.rows]), columns.index(cell.labels[figure.columns])] = cell.mean[shown]
    starred = finalists(chosen) if shown == study.metric else chosen
    best = ranked(dataclasses.replace(study, metric=shown, mode=mode), starred)[0]
    i, j = rows.index(best.labels[figure.rows]), columns.index(best.labels[figure.columns])
    if figure.log:
        grid = np.log(grid, out=np.full_like(grid, math.nan), where=grid > 0)
    texts = _texts(grid)
    texts[i, j] += "★"
    place = max(0.5, _CHARACTER * max(map(len, texts.flat)) + 0.1)
    drawn = canvas(1.8 + place * len(columns), 1.2 + 0.4 * len(rows))
    axes = drawn.add_subplot()
    image = axes.imshow(grid, cmap="viridis_r" if mode == "min" else "viridis", origin="lower", aspect="auto")
    bar_title = ("log " if figure.log else "") + metric(shown).title
    bar = drawn.colorbar(image, ticks=MaxNLocator(5), label=bar_title)
    bar.formatter = ScalarFormatter(useOffset=False)
    axes.set_xticks(range(len(columns)), [label(value) for value in columns])
    axes.set_yticks(range(len(rows)), [label(value) for value in rows])
    axes.set(xlabel=readable(figure.columns), ylabel=readable(figure.rows), title=panel.title)
    _write(axes, image, grid, texts)
    for index, value in enumerate(rows):
        if value in columns:
            corner = (columns.index(value) - 0.5, index - 0.5)
            axes.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor=DIAGONAL, linewidth=1.5))
    caption = panel.caption(shown, f"over {readable(figure.rows)} and {readable(figure.columns)}")
    caption += " The values are natural logarithms." if figure.log else ""
    caption += " Outlined: both values are equal. Starred: the best."
    if best.confirmation and (fresh := best.confirmation.average(shown)):
        caption += f" The fields are means over the seeds that chose; with {fresh.n} fresh seeds the best has "
        caption += f"{number(fresh.value, fresh.stderr)}."
    where = f"{readable(figure.rows)} {label(rows[i])}, {readable(figure.columns)} {label(columns[j])}"
    chart = HeatmapChart(
        readable(figure.columns),
        readable(figure.rows),
        bar_title,
        list(map(label, columns)),
        list(map(label, rows)),
        mode,
        list(_fields(figure, panel, chosen, grid, texts, image)),
    )
    return panel.drawing(drawn, caption, f"Heatmap: {caption} The best is {number(grid[i, j])} at {where}.", chart)


def _fields(
    figure: Heatmap, panel: Panel, chosen: Sequence[Cell], grid: np.ndarray, texts: np.ndarray, image: AxesImage
) -> Iterator[Field]:
    """The fields that have a number, for the page's script."""
    shown = figure.metric or panel.study.metric
    rows, columns = (_values(panel, path) for path in (figure.rows, figure.columns))
    for cell in chosen:
        row, column = cell.labels[figure.rows], cell.labels[figure.columns]
        i, j, average = rows.index(row), columns.index(column), cell.average(shown)
        if average and texts[i, j]:
            value = float(grid[i, j])
            where = f"{readable(figure.rows)} {label(row)}, {readable(figure.columns)} {label(column)}"
            text = f"{where}: {metric(shown).title} {told(average.value, average.stderr, average.n)}"
            yield Field(j, i, value, texts[i, j], _ink(image, value), text, row == column)


def _values(panel: Panel, path: str) -> list[Any]:
    """The values of a label: numbers in ascending order, others in the order of the plan."""
    values = list(dict.fromkeys(cell.labels[path] for cell in panel.cells))
    return sorted(values) if all(isinstance(value, int | float) for value in values) else values


def _texts(grid: np.ndarray) -> np.ndarray:
    """The number in each field, with enough decimals to show the differences; empty if there is no result."""
    span = np.nanmax(grid) - np.nanmin(grid)
    decimals = 0 if not span else min(4, max(0, 2 - math.floor(math.log10(span))))
    texts = [f"{value:.{decimals}f}" if math.isfinite(value) else "" for value in grid.flat]
    return np.array(texts, dtype=object).reshape(grid.shape)


def _write(axes: Axes, image: AxesImage, grid: np.ndarray, texts: np.ndarray) -> None:
    """Writes the numbers into the fields."""
    for (i, j), text in np.ndenumerate(texts):
        axes.text(j, i, text, ha="center", va="center", color=_ink(image, float(grid[i, j])), size=7)


def _ink(image: AxesImage, value: float) -> str:
    """The ink that is easier to read on the colour of a value."""
    red, green, blue, _ = image.to_rgba(np.array([value]))[0]
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"
