"""How figures become files: PNG for the page, PDF for a paper, marked where they cannot be held against the paper's."""

import io
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import matplotlib
from cycler import cycler
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D31")
"""Told apart by colour-blind readers, too (Okabe and Ito)."""
_STYLE: dict[Any, Any] = {
    "axes.prop_cycle": cycler(color=COLORS),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "font.size": 9,
    "pdf.fonttype": 42,  # text stays text
    "figure.max_open_warning": 0,
}


@dataclass(frozen=True)
class Drawing:
    """A figure, drawn.

    name: the stem of its files. caption: what it shows. alt: what it says, for those who cannot see it.
    """

    name: str
    caption: str
    alt: str
    png: bytes = field(repr=False)
    pdf: bytes = field(repr=False)
    mark: str = ""


@contextmanager
def style() -> Iterator[None]:
    """The settings that all figures of the report are drawn with."""
    with matplotlib.rc_context(_STYLE):
        yield


def canvas(width: float, height: float) -> Figure:
    """An empty figure; size in inches."""
    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def draw(figure: Figure, name: str, caption: str, alt: str, mark: str) -> Drawing:
    """The files of a figure. The mark is drawn into it: a file goes where no caption follows."""
    # Figures that Optuna laid out, and marks below a figure, need their margins found.
    box = "tight" if mark or figure.get_layout_engine() is None else None
    if mark:
        text = textwrap.fill(mark, int(figure.get_figwidth() * 17))
        figure.text(0.5, 0, text, color="#B00020", fontsize=7, fontweight="bold", ha="center", va="top")
    png, pdf = io.BytesIO(), io.BytesIO()
    figure.savefig(png, format="png", bbox_inches=box, metadata={"Software": None})
    figure.set_layout_engine("none")  # it stays as it was laid out, which takes as long as drawing it
    figure.savefig(pdf, format="pdf", bbox_inches=box, metadata={"CreationDate": None})
    return Drawing(name, caption, alt, png.getvalue(), pdf.getvalue(), mark)
