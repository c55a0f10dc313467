"""Draws all plots of a study (`search_spaces.figures`), with the tables that belong to them."""

from collections.abc import Sequence

from search_spaces.figures import Curves, Heatmap, Images, Lines
from search_spaces.space import Study
from sweeps.analysis.cells import Cell
from sweeps.report.drawing import Drawing
from sweeps.report.heatmap import heatmap
from sweeps.report.panels import panels
from sweeps.report.plots import curves, lines
from sweeps.report.table import Table
from sweeps.report.target_table import target_table


def figures(study: Study, found: Sequence[Cell], mark: str) -> tuple[list[Drawing], list[Table]]:
    """The plots of a study that have results, and their tables."""
    drawings: list[Drawing] = []
    tables: list[Table] = []
    for number, figure in enumerate(study.figures, start=1):
        for panel in panels(study, number, found, mark):
            match figure:
                case Heatmap():
                    drawings.append(heatmap(figure, panel))
                case Lines():
                    drawings.append(lines(figure, panel))
                case Curves():
                    drawings.append(curves(figure, panel))
                    if figure.target is not None:
                        tables.append(target_table(figure, panel))
                case Images():
                    pass  # drawn from checkpoints: `sweeps.report.reconstructions`
    return drawings, tables
