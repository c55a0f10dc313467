"""Draws all plots of a study (`search_spaces.figures`), with the tables that belong to them."""

from collections.abc import Sequence

from search_spaces.figures import Curves, Heatmap, Images, Lines
from search_spaces.space import Study
from sweeps.analysis.cells import Cell
from sweeps.analysis.metrics import metric
from sweeps.report.drawing import Drawing
from sweeps.report.heatmap import heatmap
from sweeps.report.panels import panels
from sweeps.report.plots import curves, lines
from sweeps.report.table import Table
from sweeps.report.target_table import target_table


def not_measured(study: Study, found: Sequence[Cell]) -> list[str]:
    """A sentence for each metric of a figure that finished trainings lack, as results of earlier versions may."""
    finished = [row for cell in found for row in cell.finished.values()]
    shown = dict.fromkeys(figure.metric or study.metric for figure in study.figures if not isinstance(figure, Images))
    sentences: list[str] = []
    for name in shown:
        lacking = sum(name not in row.metrics for row in finished)
        if lacking:
            rest = "there is no figure of it" if lacking == len(finished) else "the figure leaves them out"
            sentences.append(
                f"{lacking} of {len(finished)} finished trainings have no {metric(name).title}, so {rest}. "
                "An earlier version of the program may not have measured it."
            )
    return sentences


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
