"""Draws Optuna's plots of searched studies."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib
import numpy as np
import optuna
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.text import Text
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState
from optuna.visualization import matplotlib as plots

from search_spaces.space import Dimension, Study, Uniform
from sweeps.analysis.cells import Cell, groups
from sweeps.analysis.labels import label, readable
from sweeps.analysis.metrics import metric
from sweeps.planning.search import distribution, options, replayed
from sweeps.report.drawing import INK, Drawing, draw, log_ticks
from sweeps.report.table import stem

optuna.logging.set_verbosity(optuna.logging.WARNING)
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
        rebuilt = optuna_study(study, group)
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


def optuna_study(study: Study, found: Sequence[Cell]) -> optuna.Study:
    """An Optuna study with a trial for each suggestion of a search that has results, in one cell of the grid."""
    rebuilt = optuna.create_study(direction="minimize" if study.mode == "min" else "maximize")
    rebuilt.add_trials([_trial(study, cell) for cell in found if cell.ended])
    return rebuilt


def _trial(study: Study, cell: Cell) -> FrozenTrial:
    assert study.search is not None
    present = [dimension for dimension in study.search.space if dimension.key in cell.labels]
    params = {dimension.key: _shown(dimension, cell.labels[dimension.key]) for dimension in present}
    distributions = {dimension.key: _distribution(dimension) for dimension in present}
    return replayed(study, params, distributions, [cell.ended.get(m.config.seed) for m in cell.members])


def _distribution(dimension: Dimension) -> BaseDistribution:
    if isinstance(dimension, Uniform):
        return distribution(dimension)
    return CategoricalDistribution([label(value) for value in options(dimension)])


def _shown(dimension: Dimension, value: Any) -> Any:
    """A value for the plots: a number if the dimension is continuous, else a word."""
    return value if isinstance(dimension, Uniform) else label(value)


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
