"""Panels of a study's figures: the cells to draw, the title and the names of the files."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure as Canvas

from search_spaces.figures import Images
from search_spaces.space import Study
from sweeps.analysis.cells import Cell, groups
from sweeps.analysis.labels import label, readable
from sweeps.analysis.metrics import metric
from sweeps.report.charts import Chart
from sweeps.report.drawing import Drawing, draw
from sweeps.report.table import stem


@dataclass(frozen=True)
class Panel:
    """One drawing of a figure: all of it, or the part with one value of its `panels` label.

    name: the stem of its files. title: empty if the figure has one panel only.
    """

    study: Study
    cells: Sequence[Cell]
    name: str
    title: str = ""
    mark: str = ""

    @property
    def heading(self) -> str:
        """The titles of the study and of the panel."""
        return f"{self.study.title} ({self.title})" if self.title else self.study.title

    def caption(self, name: str, over: str) -> str:
        """The first sentence of a caption: the metric, and what it is shown over."""
        return f"{self.heading}: {metric(name).title} {over}."

    @property
    def fresh(self) -> str:
        """A sentence on the seeds of confirmed configurations; empty if there are none."""
        confirmed = any(cell.confirmation for cell in self.cells)
        return " Finalists with the fresh seeds that confirm them, others with the seeds that chose." * confirmed

    def drawing(self, canvas: Canvas, caption: str, alt: str, chart: Chart | None = None) -> Drawing:
        """The files of what was drawn for the panel."""
        return draw(canvas, self.name, caption, alt, self.mark, chart)


def drawn(cell: Cell, name: str) -> Cell:
    """The seeds to draw of a cell: those that confirm it; while none of them has the metric, those that chose it."""
    return cell.judged if name in cell.judged.mean else cell


def panels(study: Study, number: int, found: Sequence[Cell], mark: str) -> Iterator[Panel]:
    """The panels with results of one figure of a study; figures are numbered from 1."""
    figure = study.figures[number - 1]
    shown = study.metric if isinstance(figure, Images) else figure.metric or study.metric
    done = [cell for cell in found if shown in cell.mean]
    if not figure.panels:
        if done:
            yield Panel(study, done, stem(study, f"figure{number}"), mark=mark)
        return
    for part, group in enumerate(groups((figure.panels,), done), start=1):
        title = f"{readable(figure.panels)} {label(group[0].labels.get(figure.panels))}"
        yield Panel(study, group, stem(study, f"figure{number}-{part}"), title, mark)
