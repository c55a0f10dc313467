"""Line plots and learning curves: a metric's mean over seeds, with its standard error."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from search_spaces.figures import Curves, Lines
from sweeps.analysis.cells import Cell, groups, standing
from sweeps.analysis.labels import label, readable
from sweeps.analysis.metrics import metric
from sweeps.report.charts import Line, LineChart, Point, Scale, point
from sweeps.report.drawing import Drawing, canvas, log_ticks
from sweeps.report.heatmap import DIAGONAL
from sweeps.report.panels import Panel, drawn

_LEGEND = 40
"""The most characters of a label in a legend; longer ones would cover the plot."""


def lines(figure: Lines, panel: Panel) -> Drawing:
    """Draws a metric over a numeric label; points with x equal to the series' value are red."""
    study, shown = panel.study, figure.metric or panel.study.metric
    canvas_ = canvas(5.5, 3.6)
    axes = canvas_.add_subplot()
    marked = ""
    drawn_lines = []
    for group in groups((figure.series,) if figure.series else (), panel.cells):
        value = group[0].labels.get(figure.series) if figure.series else None
        present = [cell for cell in group if figure.x in cell.labels]
        best = [drawn(cell, shown) for same in groups((figure.x,), present) if (cell := standing(study, same))]
        points = _points(sorted(best, key=lambda cell: cell.labels[figure.x]), figure.x, shown)
        x, mean, stderr = [p.x for p in points], [p.y for p in points], [p.high - p.y for p in points]
        drawn_lines.append(Line(_name(figure.series, value), points))
        axes.errorbar(x, mean, stderr, marker="o", markersize=3, capsize=2, label=in_legend(value))
        if value in x:
            axes.plot(value, mean[x.index(value)], "D", color=DIAGONAL, zorder=3)
            marked = f"; a red point has the same {readable(figure.x)}"
    _scales(axes, figure.log_x, figure.log_y)
    axes.set(xlabel=readable(figure.x), ylabel=metric(shown).title, title=panel.title)
    _legend(axes, figure.series)
    caption = panel.caption(shown, f"over {readable(figure.x)}, mean and standard error over seeds")
    if figure.series:
        caption += f" One line for each {readable(figure.series)}{marked}."
    caption += panel.fresh
    chart = LineChart(readable(figure.x), metric(shown).title, _scale(figure.log_x), _scale(figure.log_y), drawn_lines)
    return panel.drawing(canvas_, caption, f"Line plot: {caption}", chart)


def curves(figure: Curves, panel: Panel) -> Drawing:
    """Draws a metric over epochs for the best configuration of each series, with bands of one standard error."""
    shown = figure.metric or panel.study.metric
    canvas_ = canvas(5.5, 3.6)
    axes = canvas_.add_subplot()
    drawn_lines = []
    for value, cell in best_of_series(figure, panel):
        history = _history(cell, shown)
        measured = ~np.isnan(history).all(0)
        epochs = 1 + np.flatnonzero(measured)
        history = history[:, measured]
        mean = history.mean(0)
        (line,) = axes.plot(epochs, mean, label=in_legend(value), linewidth=1.2)
        stderr = np.full_like(mean, math.nan)
        if len(history) > 1:
            stderr = history.std(0, ddof=1) / math.sqrt(len(history))
            axes.fill_between(epochs, mean - stderr, mean + stderr, color=line.get_color(), alpha=0.25, linewidth=0)
        values = zip(epochs.tolist(), mean.tolist(), stderr.tolist(), strict=True)
        points = [point(x, y, error, len(history)) for x, y, error in values if math.isfinite(y)]
        drawn_lines.append(Line(_name(figure.series, value), points))
    if figure.target is not None:
        axes.axhline(figure.target, color="grey", linestyle=":", linewidth=1)
    if not figure.log_y:
        _without_the_start(axes)
    _scales(axes, False, figure.log_y)
    axes.set(xlabel="epoch", ylabel=metric(shown).title, title=panel.title)
    _legend(axes, figure.series)
    caption = panel.caption(shown, "over epochs, mean and standard error over seeds")
    caption += f" Each {readable(figure.series)} at its best configuration.{panel.fresh}"
    chart = LineChart("epoch", metric(shown).title, "value", _scale(figure.log_y), drawn_lines, axes.get_ylim())
    return panel.drawing(canvas_, caption, f"Learning curves: {caption}", chart)


def best_of_series(figure: Curves, panel: Panel) -> list[tuple[Any, Cell]]:
    """The best configuration of each series, with the series' label and the seeds to draw."""
    shown = figure.metric or panel.study.metric
    return [
        (group[0].labels.get(figure.series), drawn(best, shown))
        for group in groups((figure.series,), panel.cells)
        if (best := standing(panel.study, group))
    ]


def _history(cell: Cell, name: str) -> np.ndarray:
    """A metric's history [seeds, epochs], up to the last epoch that all seeds have."""
    histories = [row.history[name] for row in cell.finished.values() if name in row.history]
    shortest = min(map(len, histories))
    return np.array([history[:shortest] for history in histories])


def _points(cells: Sequence[Cell], x: str, name: str) -> list[Point]:
    """The mean of each cell that has the metric, over the label `x`."""
    averages = [(float(cell.labels[x]), cell.average(name)) for cell in cells]
    return [point(x, own.value, own.stderr, own.n) for x, own in averages if own is not None]


def _name(series: str | None, value: object) -> str:
    """The name of a line."""
    return label(value) or readable(series) if series else ""


def _scale(log: bool) -> Scale:
    return "log" if log else "value"


def _scales(axes: Axes, log_x: bool, log_y: bool) -> None:
    if log_x:
        axes.set_xscale("log")
        log_ticks(axes.xaxis)
    if log_y:
        axes.set_yscale("log")
        log_ticks(axes.yaxis)


def _without_the_start(axes: Axes) -> None:
    """Sets the y limits by the last nine tenths of the epochs, so that a steep start does not flatten the rest."""
    drawn = [np.asarray(line.get_ydata(), float) for line in axes.get_lines()]
    late = np.concatenate([y[len(y) // 10 :] for y in drawn])
    low, high = late.min(), late.max()
    margin = 0.05 * (high - low) or 1.0
    bottom, top = axes.get_ylim()
    axes.set_ylim(max(bottom, low - margin), min(top, high + margin))


def in_legend(value: object) -> str:
    """A label for a legend. The middle of a long one is left out, since names often differ at their ends."""
    text = label(value)
    return text if len(text) <= _LEGEND else f"{text[: _LEGEND // 2 - 1]} … {text[2 - _LEGEND // 2 :]}"


def _legend(axes: Axes, series: str | None) -> None:
    if series and axes.get_legend_handles_labels()[0]:
        axes.legend(title=readable(series), fontsize=7, title_fontsize=7, frameon=False)
