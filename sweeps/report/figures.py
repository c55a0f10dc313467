"""What a study's figures (`search_spaces.figures`) look like: heatmaps, lines with error bars, learning curves."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from search_spaces.figures import Curves, Heatmap, Lines
from search_spaces.space import Study
from sweeps.analysis import statistics
from sweeps.analysis.cells import Cell, groups, ranked
from sweeps.analysis.labels import label, readable
from sweeps.analysis.metrics import direction, metric, number
from sweeps.report.drawing import Drawing, canvas, draw
from sweeps.report.layout import NOTHING, Entry, Table, stem

_DIAGONAL = "#D00040"


def panels(study: Study, figure: Heatmap | Lines | Curves, found: Sequence[Cell]) -> Iterator[tuple[str, list[Cell]]]:
    """(title, cells) of each panel that has results; one without a title where the figure has no panels."""
    done = [cell for cell in found if (figure.metric or study.metric) in cell.mean]
    for group in groups((figure.panels,) if figure.panels else (), done):
        title = f"{readable(figure.panels)} {label(group[0].labels.get(figure.panels))}" if figure.panels else ""
        yield title, group


def heatmap(study: Study, figure: Heatmap, found: Sequence[Cell], name: str, title: str, mark: str) -> Drawing:
    """The mean of a metric over two labels, each place at its best configuration.

    Places where both labels are equal are outlined, and the best place is starred.
    """
    shown = figure.metric or study.metric
    rows, columns = (_values(found, path) for path in (figure.rows, figure.columns))
    grid = np.full((len(rows), len(columns)), math.nan)
    for group in groups((figure.rows, figure.columns), found):
        best = ranked(study, group)[0]
        grid[rows.index(best.labels[figure.rows]), columns.index(best.labels[figure.columns])] = best.mean[shown]
    mode = direction(study, shown)
    starred = (np.nanargmin if mode == "min" else np.nanargmax)(grid)
    if figure.log:
        grid = np.log(grid, out=np.full_like(grid, math.nan), where=grid > 0)
    drawn = canvas(1.8 + 0.55 * len(columns), 1.2 + 0.4 * len(rows))
    axes = drawn.add_subplot()
    image = axes.imshow(grid, cmap="viridis_r" if mode == "min" else "viridis", origin="lower", aspect="auto")
    drawn.colorbar(image, label=("log " if figure.log else "") + metric(shown).title)
    axes.set_xticks(range(len(columns)), [label(value) for value in columns])
    axes.set_yticks(range(len(rows)), [label(value) for value in rows])
    axes.set(xlabel=readable(figure.columns), ylabel=readable(figure.rows), title=title)
    span = np.nanmax(grid) - np.nanmin(grid)
    decimals = 0 if not span else min(4, max(0, 2 - math.floor(math.log10(span))))
    for index, ((i, j), value) in enumerate(np.ndenumerate(grid)):
        if math.isfinite(value):
            red, green, blue, _ = image.to_rgba(value)
            ink = "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"
            text = f"{value:.{decimals}f}" + ("★" if index == starred else "")
            axes.text(j, i, text, ha="center", va="center", color=ink, size=7)
        if rows[i] == columns[j]:
            axes.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, fill=False, edgecolor=_DIAGONAL, linewidth=1.5))
    i, j = np.unravel_index(starred, grid.shape)
    place = f"{readable(figure.rows)} {label(rows[i])}, {readable(figure.columns)} {label(columns[j])}"
    caption = _caption(study, shown, f"over {readable(figure.rows)} and {readable(figure.columns)}", title)
    caption += " The natural logarithm." if figure.log else ""
    caption += " Outlined: both are equal. Starred: the best."
    alt = f"Heatmap: {caption} The best is {number(grid[i, j])} at {place}."
    return draw(drawn, name, caption, alt, mark)


def lines(study: Study, figure: Lines, found: Sequence[Cell], name: str, title: str, mark: str) -> Drawing:
    """A metric over a label with numbers, with standard errors; places where x equals the series are marked in red."""
    shown = figure.metric or study.metric
    drawn = canvas(5.5, 3.6)
    axes = drawn.add_subplot()
    marked = ""
    for group in groups((figure.series,) if figure.series else (), found):
        value = group[0].labels.get(figure.series) if figure.series else None
        present = [cell for cell in group if figure.x in cell.labels]
        best: list[Cell] = [ranked(study, same)[0] for same in groups((figure.x,), present)]
        x, mean, stderr = _points(sorted(best, key=lambda cell: cell.labels[figure.x]), figure.x, shown)
        axes.errorbar(x, mean, stderr, marker="o", markersize=3, capsize=2, label=label(value))
        if value in x:
            axes.plot(value, mean[x.index(value)], "D", color=_DIAGONAL, zorder=3)
            marked = f", red where it equals {readable(figure.x)}"
    _scales(axes, figure.log_x, figure.log_y)
    axes.set(xlabel=readable(figure.x), ylabel=metric(shown).title, title=title)
    _legend(axes, figure.series)
    caption = _caption(study, shown, f"over {readable(figure.x)}, mean and standard error over seeds", title)
    if figure.series:
        caption += f" A line for each {readable(figure.series)}{marked}."
    return draw(drawn, name, caption, f"Line plot: {caption}", mark)


def curves(study: Study, figure: Curves, found: Sequence[Cell], name: str, title: str, mark: str) -> Drawing:
    """A metric over epochs for the best configuration of each series, with bands of one standard error."""
    shown = figure.metric or study.metric
    drawn = canvas(5.5, 3.6)
    axes = drawn.add_subplot()
    for value, cell in _best_of(study, figure, found):
        history = _history(cell, shown)
        measured = ~np.isnan(history).all(0)
        epochs = 1 + np.flatnonzero(measured)
        history = history[:, measured]
        mean = history.mean(0)
        (line,) = axes.plot(epochs, mean, label=label(value), linewidth=1.2)
        if len(history) > 1:
            stderr = history.std(0, ddof=1) / math.sqrt(len(history))
            axes.fill_between(epochs, mean - stderr, mean + stderr, color=line.get_color(), alpha=0.25, linewidth=0)
    if figure.target is not None:
        axes.axhline(figure.target, color="grey", linestyle=":", linewidth=1)
    _scales(axes, False, figure.log_y)
    if not figure.log_y:
        _without_the_start(axes)
    axes.set(xlabel="epoch", ylabel=metric(shown).title, title=title)
    _legend(axes, figure.series)
    caption = _caption(study, shown, "over epochs, mean and standard error over seeds", title)
    caption += f" Each {readable(figure.series)} at its best configuration."
    return draw(drawn, name, caption, f"Learning curves: {caption}", mark)


def target_table(study: Study, figure: Curves, found: Sequence[Cell], name: str, mark: str) -> Table:
    """Epochs and wall-clock time until a metric reaches the target, for the best configuration of each series."""
    assert figure.target is not None
    shown = figure.metric or study.metric
    rows, records = [], []
    for value, cell in _best_of(study, figure, found):
        reached = cell.reached(shown, figure.target, direction(study, shown))
        epochs = {seed: epoch for seed, epoch in reached.items() if epoch is not None}
        seconds = {
            seed: epoch * cell.finished[seed].wall_s / cell.finished[seed].epochs for seed, epoch in epochs.items()
        }
        means = [statistics.mean(list(values.values())) if values else None for values in (epochs, seconds)]
        rows.append(
            [
                Entry(label(value), label(value)),
                *(Entry(number(m.value, m.stderr), m.value) if m else Entry(NOTHING) for m in means),
                Entry(f"{len(epochs)} of {cell.n}", len(epochs)),
            ]
        )
        records.append(
            {
                figure.series: value,
                "target": figure.target,
                "epochs_mean": means[0].value if means[0] else None,
                "epochs_stderr": means[0].stderr if means[0] else None,
                "wall_s_mean": means[1].value if means[1] else None,
                "wall_s_stderr": means[1].stderr if means[1] else None,
                "seeds_that_reach_it": len(epochs),
                "seeds": cell.n,
            }
            | ({"not_comparable": mark} if mark else {})
        )
    caption = (
        f"{study.title}: until {metric(shown).title} {number(figure.target)} is reached, mean ± standard error over "
        "the seeds that do. Seconds are a member's share of the time in which it was trained together with others."
    )
    return Table(name, caption, [readable(figure.series), "epochs", "seconds", "seeds"], rows, records, mark)


def figures(study: Study, found: Sequence[Cell], mark: str) -> tuple[list[Drawing], list[Table]]:
    """All figures of a study that have something to show, and the tables that belong to them."""
    drawings, tables = [], []
    for index, figure in enumerate(study.figures, start=1):
        if not isinstance(figure, Heatmap | Lines | Curves):
            continue
        for panel, (title, cells) in enumerate(panels(study, figure, found), start=1):
            name = stem(study, f"figure{index}" + (f"-{panel}" if figure.panels else ""))
            match figure:
                case Heatmap():
                    drawings.append(heatmap(study, figure, cells, name, title, mark))
                case Lines():
                    drawings.append(lines(study, figure, cells, name, title, mark))
                case Curves():
                    drawings.append(curves(study, figure, cells, name, title, mark))
                    if figure.target is not None:
                        tables.append(target_table(study, figure, cells, f"{name}-target", mark))
    return drawings, tables


def _best_of(study: Study, figure: Curves, found: Sequence[Cell]) -> list[tuple[Any, Cell]]:
    return [
        (group[0].labels.get(figure.series), best[0])
        for group in groups((figure.series,), found)
        if (best := ranked(study, group))
    ]


def _history(cell: Cell, name: str) -> np.ndarray:
    """A metric [seeds, epochs]."""
    histories = [row.history[name] for row in cell.finished.values() if name in row.history]
    shortest = min(map(len, histories))
    return np.array([history[:shortest] for history in histories])


def _points(cells: Sequence[Cell], x: str, name: str) -> tuple[list[float], list[float], list[float]]:
    """A label's value, mean and standard error of each cell; no error where there is one seed."""
    averages = [(cell.labels[x], average) for cell in cells if (average := cell.average(name)) is not None]
    errors = [0.0 if math.isnan(average.stderr) else average.stderr for _, average in averages]
    return [value for value, _ in averages], [average.value for _, average in averages], errors


def _values(found: Sequence[Cell], path: str) -> list[Any]:
    """The values of a label: numbers in their order, others in that of the plan."""
    values = list(dict.fromkeys(cell.labels[path] for cell in found))
    return sorted(values) if all(isinstance(value, int | float) for value in values) else values


def _scales(axes: Axes, log_x: bool, log_y: bool) -> None:
    if log_x:
        axes.set_xscale("log")
    if log_y:
        axes.set_yscale("log")


def _without_the_start(axes: Axes) -> None:
    """Leaves the first tenth of the epochs out of what is seen where they would flatten the rest."""
    drawn = [np.asarray(line.get_ydata(), float) for line in axes.get_lines()]
    late = np.concatenate([y[len(y) // 10 :] for y in drawn])
    low, high = late.min(), late.max()
    margin = 0.05 * (high - low) or 1.0
    bottom, top = axes.get_ylim()
    axes.set_ylim(max(bottom, low - margin), min(top, high + margin))


def _legend(axes: Axes, series: str | None) -> None:
    if series and axes.get_legend_handles_labels()[0]:
        axes.legend(title=readable(series), fontsize=7, title_fontsize=7, frameon=False)


def _caption(study: Study, name: str, over: str, title: str) -> str:
    return f"{study.title}{f' ({title})' if title else ''}: {metric(name).title} {over}."
