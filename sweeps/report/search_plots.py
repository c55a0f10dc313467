"""Draws Optuna's plots of searched studies, and the importance of fields of any study."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib
import numpy as np
import optuna
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.text import Text
from optuna.trial import TrialState
from optuna.visualization import matplotlib as plots

from search_spaces.space import Study
from sweeps.analysis.cells import Cell, groups
from sweeps.analysis.labels import label, readable
from sweeps.analysis.metrics import metric
from sweeps.report.drawing import INK, Drawing, canvas, draw, log_ticks
from sweeps.report.optuna_studies import importances, optuna_study
from sweeps.report.table import Entry, Table, stem

_PLOTS: dict[str, tuple[Callable[..., Any], bool, str]] = {
    "history": (plots.plot_optimization_history, True, "Optimization history"),
    "importances": (plots.plot_param_importances, True, "Importance of each field"),
    "parallel": (plots.plot_parallel_coordinate, True, "Parallel coordinates"),
    "contour": (plots.plot_contour, True, "Contour"),
    "slice": (plots.plot_slice, True, "Slices"),
    "rank": (plots.plot_rank, True, "Rank"),
    "timeline": (plots.plot_timeline, False, "Timeline"),
}
"""Optuna's plots: the function, whether it shows the metric, and the title."""
_SIZE = 3.2


def search_plots(study: Study, found: Sequence[Cell], mark: str) -> tuple[list[Drawing], list[str]]:
    """Optuna's plots of a searched study for each cell of its grid, and the reasons for plots that cannot be drawn."""
    assert study.search is not None
    drawings, reasons = [], []
    keys = {dimension.key for dimension in study.search.space}
    names = sorted({name for cell in found for name in cell.labels} - keys)
    for index, group in enumerate(groups(names, found), start=1):
        where = ", ".join(f"{readable(name)} {label(group[0].labels.get(name))}" for name in names)
        rebuilt = optuna_study(study, group, [d.key for d in study.search.space])
        if not rebuilt.get_trials(states=[TrialState.COMPLETE], deepcopy=False):
            reasons.append(f"No figures of the search{f', {where}' if where else ''}: no suggestion has finished.")
            continue
        for kind, (function, of_metric, title) in _PLOTS.items():
            title = f"{title}, {where}" if where else title
            name = stem(study, "search", *([str(index)] if names else []), kind)
            try:
                figure = _drawn(function, rebuilt, {"target_name": metric(study.metric).title} if of_metric else {})
            except (ValueError, RuntimeError, ZeroDivisionError, ImportError) as error:
                reasons.append(f"{title}: Optuna cannot draw it ({' '.join(str(error).split())})")
                continue
            caption = f"{study.title}: {title[0].lower()}{title[1:]}, drawn by Optuna."
            drawings.append(draw(figure, name, caption, caption, mark, fit=True))
    return drawings, reasons


def importance_plot(
    study: Study, found: Sequence[Cell], mark: str, drawn: bool = True
) -> tuple[list[Drawing], list[Table]]:
    """The importance of each varied field of a study, grid or search, as a figure and a table; empty if unknown."""
    known = importances(study, found)
    if known is None:
        return [], []
    shares, best, count = known
    caption = (
        f"{study.title}: importance of each field for reaching the best {best} of {count} configurations by "
        f"{metric(study.metric).title} (PED-ANOVA, arXiv 2304.10255). It compares how often each value is among them "
        "and among all, fields one at a time: a field that matters only together with another one looks unimportant. "
        "It holds for the values that were tried."
    )
    name = stem(study, "importance")
    rows = [[Entry(readable(field), field), Entry(f"{share:.2f}", share)] for field, share in shares.items()]
    records = [{"field": field, "importance": share} for field, share in shares.items()]
    table = Table(name, caption, ["field", "importance"], rows, records, mark)
    if not drawn:
        return [], [table]
    figure = canvas(5.5, 0.8 + 0.35 * len(shares))
    axes = figure.add_subplot()
    axes.barh([readable(field) for field in reversed(shares)], list(reversed(shares.values())))
    axes.set(xlabel="importance", xlim=(0, 1))
    return [draw(figure, name, caption, f"Bars: {caption}", mark)], [table]


def _drawn(function: Callable[..., Any], study: optuna.Study, options: dict[str, Any]) -> Figure:
    # Optuna draws with pyplot and sets a style for the whole process.
    from matplotlib import pyplot

    matplotlib.use("Agg")
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            drawn = np.atleast_2d(function(study, **options))
            figure = drawn.flat[0].get_figure()
            rows, columns = drawn.shape
            figure.set_size_inches(min(12, _SIZE * columns + 3), min(12, _SIZE * rows))
            _restyle(figure)
            return figure
        finally:
            pyplot.close("all")


def _restyle(figure: Figure) -> None:
    """Replaces grey panels and black text, which are unreadable on a dark page, and powers of ten on the axes."""
    figure.patch.set_facecolor("none")
    for axes in figure.axes:
        axes.set_facecolor("none")
        for spine in axes.spines.values():
            spine.set_color("#80808080")
        axes.tick_params(which="both", colors=INK)
        if not hasattr(axes, "_colorbar"):
            axes.grid(color="#80808040")
        for axis in (axes.xaxis, axes.yaxis):
            if axis.get_scale() == "log":
                log_ticks(axis)
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        text.set_color(INK)
    for legend in figure.findobj(Legend):
        assert isinstance(legend, Legend)
        legend.get_frame().set(facecolor="none", edgecolor="none")
