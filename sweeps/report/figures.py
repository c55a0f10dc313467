"""Figures, as PNG bytes."""

import io
import math
from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from search_spaces.space import Study
from sweeps.report.tables import Cell


def _png(figure: Figure) -> bytes:
    sink = io.BytesIO()
    FigureCanvasAgg(figure).print_png(sink, metadata={"Software": None})
    return sink.getvalue()


def heatmap(study: Study, found: Sequence[Cell], best: Cell) -> bytes:
    """The study's metric over its two `heatmap` labels; the diagonal is outlined, the best cell starred."""
    assert study.heatmap is not None
    row_name, column_name = study.heatmap
    rows = sorted({cell.labels[row_name] for cell in found})
    columns = sorted({cell.labels[column_name] for cell in found})
    grid = np.full((len(rows), len(columns)), math.nan)
    for cell in found:
        grid[rows.index(cell.labels[row_name]), columns.index(cell.labels[column_name])] = cell.mean.get(
            study.metric, math.nan
        )
    figure = Figure(figsize=(1.5 + 0.8 * len(columns), 1.2 + 0.6 * len(rows)), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(grid, cmap="viridis_r" if study.mode == "min" else "viridis", origin="lower", aspect="auto")
    figure.colorbar(image, label=study.metric)
    axes.set_xticks(range(len(columns)), [f"{value:g}" for value in columns])
    axes.set_yticks(range(len(rows)), [f"{value:g}" for value in rows])
    axes.set_xlabel(_readable(column_name))
    axes.set_ylabel(_readable(row_name))
    middle = np.nanmean(grid)
    for (i, j), value in np.ndenumerate(grid):
        star = "★" if best.labels[row_name] == rows[i] and best.labels[column_name] == columns[j] else ""
        bright = (value > middle) == (study.mode == "max")
        axes.text(j, i, f"{value:.2f}{star}", ha="center", va="center", color="black" if bright else "white", size=8)
        if rows[i] == columns[j]:
            axes.add_patch(_outline(i, j))
    return _png(figure)


def _outline(row: int, column: int):
    from matplotlib.patches import Rectangle

    return Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor="crimson", linewidth=1.5)


def _readable(path: str) -> str:
    return path.rpartition(".")[2].replace("_", " ")
