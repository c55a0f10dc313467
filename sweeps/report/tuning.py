"""Shows how much tuning each row of a study needs: a figure, a table and a sentence (`sweeps.analysis.tuning`)."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from search_spaces.space import Study
from sweeps.analysis.cells import Cell
from sweeps.analysis.labels import describe, label, readable
from sweeps.analysis.metrics import metric
from sweeps.analysis.numbers import number
from sweeps.analysis.tuning import Sensitivity, TunedRow, sensitivities, tuned_rows, tuning_curve, unsuited
from sweeps.report.drawing import COLORS, Drawing, canvas, draw
from sweeps.report.plots import in_legend
from sweeps.report.table import NOTHING, Entry, Table, stem


def tuning(study: Study, found: Sequence[Cell], mark: str, drawn: bool) -> tuple[list[Drawing], list[Table], str]:
    """The figure and the table of a study, and a sentence that sums them up; empty where they do not apply."""
    rows = tuned_rows(study, found)
    if not rows:
        why = unsuited(study) if study.compare else ""
        return [], [], f"There are no tuning curves: {why}." if why else ""
    lost = sensitivities(study, rows)
    drawings = [_figure(study, rows, mark)] if drawn else []
    return drawings, [_table(study, rows, lost, mark)], _sentence(study, rows, lost)


def _sign(study: Study) -> int:
    """The sign that turns a loss into the metric."""
    return 1 if study.mode == "min" else -1


def _figure(study: Study, rows: Sequence[TunedRow], mark: str) -> Drawing:
    title, sign = metric(study.metric).title, _sign(study)
    shown = sorted(rows, key=lambda row: min(row.losses))[: len(COLORS)]
    figure = canvas(5.5, 3.6)
    axes = figure.add_subplot()
    medians = []
    for row in shown:
        curve = tuning_curve(row.losses)
        tried = np.arange(1, len(curve.median) + 1)
        median, *ends = (
            sign * np.where(np.isfinite(side), side, np.nan) for side in (curve.median, curve.low, curve.high)
        )
        (line,) = axes.plot(tried, median, marker="o", markersize=3, label=in_legend(describe(row.labels)))
        for end in ends:
            axes.plot(tried, end, ":", color=line.get_color(), linewidth=1)
        medians.append(median)
    seen = np.concatenate(medians)
    margin = 0.15 * float(np.nanmax(seen) - np.nanmin(seen)) or 1.0
    axes.set_ylim(np.nanmin(seen) - margin, np.nanmax(seen) + margin)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="configurations tried", ylabel=title)
    axes.legend(fontsize=7, frameon=False)
    caption = (
        f"{study.title}: {title} of the best of n configurations, the median over random draws. The configurations of "
        "a row are treated as such draws (docs/tuning.md). Dotted lines: ends of simultaneous 95 % bands, where the "
        "configurations are enough to limit them."
    )
    if len(shown) < len(rows):
        caption += f" The best {len(shown)} of {len(rows)} rows."
    return draw(figure, stem(study, "tuning"), caption, f"Tuning curves: {caption}", mark)


def _table(study: Study, rows: Sequence[TunedRow], lost: Sequence[Sensitivity], mark: str) -> Table:
    title = metric(study.metric).title
    names = list(dict.fromkeys(name for row in rows for name in row.labels))
    steps = list(dict.fromkeys(name for each in lost for name in each.steps))
    headings = [
        *map(readable, names),
        "configurations",
        "failed",
        f"best {title}",
        "lost at the median",
        *(f"lost one step of {readable(name)} away" for name in steps),
        "lost at the shared setting",
    ]
    lines: list[list[Entry]] = []
    records: list[dict[str, Any]] = []
    for row, each in zip(rows, lost, strict=True):
        labels = {name: "none" if row.labels.get(name) is None else row.labels[name] for name in names}
        best, median = _sign(study) * min(row.losses), each.median
        lines.append(
            [
                *(Entry(label(value), value) for value in labels.values()),
                Entry(str(len(row.cells)), len(row.cells)),
                Entry(str(row.failed), row.failed),
                Entry(number(best), best),
                Entry(number(median.value, median.stderr), median.value) if median else _lost(math.inf),
                *(_lost(each.steps.get(name)) for name in steps),
                _lost(each.shared),
            ]
        )
        records.append(
            labels
            | {
                "configurations": len(row.cells),
                "failed": row.failed,
                f"{study.metric}_best": best,
                "lost_at_median": median.value if median else math.inf,
                "lost_at_median_stderr": median.stderr if median else None,
                **{f"lost_one_step_of_{name}": each.steps.get(name) for name in steps},
                "lost_at_shared_setting": each.shared,
            }
            | ({"not_comparable": mark} if mark else {})
        )
    caption = (
        f"{study.title}: what each row loses against its best configuration, in units of {title}: at its median "
        "configuration, at the worse neighbour of the best value, and at the one setting that is best for all rows "
        "together. The same seeds choose the best, so losses are rather too large (docs/tuning.md)."
    )
    return Table(stem(study, "tuning"), caption, headings, lines, records, mark).without_empty(last=1)


def _lost(value: float | None) -> Entry:
    if value is None:
        return Entry(NOTHING)
    return Entry(number(value) if math.isfinite(value) else "fails", value)


def _sentence(study: Study, rows: Sequence[TunedRow], lost: Sequence[Sensitivity]) -> str:
    """Names the leader for each number of configurations tried, and the rows that lose least and most untuned."""
    names = [describe(row.labels) for row in rows]
    curves = [tuning_curve(row.losses) for row in rows]
    budgets = range(min(len(row.losses) for row in rows))
    leaders = [min(range(len(rows)), key=lambda i: curves[i].median[n]) for n in budgets]
    changes = [n for n in budgets if n == 0 or leaders[n] != leaders[n - 1]]
    text = "Best if one configuration is tried: " + "; ".join(
        f"from {n + 1} on: {names[leaders[n]]}" if n else names[leaders[0]] for n in changes
    )
    first = curves[leaders[0]]
    apart = all(first.high[0] < curve.low[0] for curve in curves if curve is not first)
    text += f" (the 95 % bands at one {'lie apart' if apart else 'overlap'})."
    at_median = {i: each.median.value for i, each in enumerate(lost) if each.median}
    if len(at_median) < 2:
        return text
    least, *_, most = sorted(at_median, key=at_median.__getitem__)
    return (
        f"{text} Needs least tuning to come near its own best: {names[least]}, which loses {at_median[least]:.2g} "
        f"{metric(study.metric).title} at its median configuration; most: {names[most]}, {at_median[most]:.2g}."
    )
