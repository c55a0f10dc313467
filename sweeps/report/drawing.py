"""Drawn figures as files: SVG for the page, PNG and PDF for use elsewhere.

The SVG follows the page's light or dark colours. PNG and PDF are used without the page and its banner, so a mark in
the figure says if its results are not comparable with the paper.
"""

import io
import math
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import matplotlib
from cycler import cycler
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from sweeps.report import fonts
from sweeps.report.charts import Chart

INK = "#1a1a1b"
"""The colour of text and axes. The SVG replaces it by the colour of the page's text."""
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", INK, "#8C6D31")
"""Colours of lines, distinct for colour-blind readers too (Okabe and Ito)."""
_STYLE: dict[Any, Any] = {
    "axes.prop_cycle": cycler(color=COLORS),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
    "font.size": 9,
    "text.parse_math": False,  # labels may hold a $, which would begin a formula
    "pdf.fonttype": 42,  # keeps text as text
    "svg.fonttype": "none",  # the same, in a much smaller file
    "svg.hashsalt": "report",  # equal figures give equal files
    "figure.max_open_warning": 0,
}
_THEME = f"svg{{color:{INK}}}@media(prefers-color-scheme:dark){{svg{{color:#ececec}}}}"


@dataclass(frozen=True)
class Drawing:
    """A drawn figure.

    name: the stem of its files. caption: what it shows. alt: a description for readers who cannot see it.
    mark: why its results are not comparable with the paper; empty if they are.
    chart: the same as data, for a page with scripts; None for a figure that stays an image.
    """

    name: str
    caption: str
    alt: str
    svg: bytes = field(repr=False)
    png: bytes = field(repr=False)
    pdf: bytes = field(repr=False)
    mark: str = ""
    chart: Chart | None = field(default=None, repr=False)


@contextmanager
def style() -> Iterator[None]:
    """Sets matplotlib's style for the figures of the report."""
    settings: dict[Any, Any] = _STYLE | {"font.family": fonts.families()}
    with matplotlib.rc_context(settings):
        yield


def canvas(width: float, height: float) -> Figure:
    """An empty figure; width and height in inches."""
    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def log_ticks(axis: Axis) -> None:
    """Labels a logarithmic axis with a few plain numbers (0.001, 0.003, 0.01); call it after the limits are set."""
    low, high = sorted(axis.get_view_interval())
    decades = math.log10(high / low)
    axis.set_major_locator(LogLocator(subs=(1,) if decades > 4 else (1, 3) if decades > 1.5 else (1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def draw(
    figure: Figure, name: str, caption: str, alt: str, mark: str, chart: Chart | None = None, *, fit: bool = False
) -> Drawing:
    """Writes a figure as SVG, PNG and PDF.

    fit: crop the margins, for a figure that another library has laid out.
    """
    svg = _svg(figure, fit)
    box = "tight" if mark or fit else None  # the mark lies below the figure
    if mark:
        text = textwrap.fill(mark, int(figure.get_figwidth() * 17))
        figure.text(0.5, 0, text, color="#B00020", fontsize=7, fontweight="bold", ha="center", va="top")
    figure.set_layout_engine("none")  # reuses the SVG's layout, which takes as long as drawing
    png, pdf = io.BytesIO(), io.BytesIO()
    figure.savefig(png, format="png", bbox_inches=box, facecolor="white", metadata={"Software": None})
    figure.savefig(pdf, format="pdf", bbox_inches=box, metadata={"CreationDate": None})
    return Drawing(name, caption, alt, svg, png.getvalue(), pdf.getvalue(), mark, chart)


def _svg(figure: Figure, fit: bool) -> bytes:
    sink = io.BytesIO()
    figure.savefig(sink, format="svg", bbox_inches="tight" if fit else None, metadata={"Date": None, "Creator": None})
    text = sink.getvalue().decode().replace(INK, "currentColor").replace(f"'{fonts.FAMILY}', ", "")
    return text.replace('<style type="text/css">', f'<style type="text/css">{_THEME}', 1).encode()
