"""Shows the rows of a table over its studies: a figure, a table and a note (`sweeps.analysis.across`)."""

import math
from collections.abc import Sequence
from typing import Any

from sweeps.analysis.across import FEWEST_SEEDS, Across, AcrossRow, Estimate
from sweeps.analysis.labels import describe, label, readable
from sweeps.report.drawing import COLORS, Drawing, canvas, draw
from sweeps.report.plots import in_legend
from sweeps.report.table import NOTHING, Entry, Table, stem

_BEATEN = "P(best row is better)"


def across_table(found: Across, mark: str) -> Table:
    """A row for each row of the table: interquartile mean and probability of improvement, with 95 % intervals."""
    names = list(dict.fromkeys(name for row in found.rows for name in row.labels))
    headings = [*map(readable, names), "interquartile mean", "95 % interval of it", _BEATEN, "95 % interval of P"]
    rows = [
        [*(_label(row.labels.get(name)) for name in names), *_entries(row.iqm), *_entries(row.beaten)]
        for row in found.rows
    ]
    records = [_record(names, row) | ({"not_comparable": mark} if mark else {}) for row in found.rows]
    return Table(stem(found.studies[-1], "across"), _caption(found), headings, rows, records, mark)


def across_figure(found: Across, mark: str) -> Drawing:
    """Points with 95 % intervals, a line for each row, the best first."""
    figure = canvas(7, 1.2 + 0.3 * len(found.rows))
    left, right = figure.subplots(1, 2, sharey=True)
    for place, row in enumerate(found.rows):
        for axes, each in ((left, row.iqm), (right, row.beaten)):
            if each is not None:
                axes.plot([each.low, each.high], [place, place], color=COLORS[0], linewidth=2, alpha=0.5)
                axes.plot(each.value, place, "o", color=COLORS[0], markersize=5)
    left.set_yticks(range(len(found.rows)), [in_legend(describe(row.labels)) for row in found.rows])
    left.set_ylim(len(found.rows) - 0.5, -0.5)
    left.set(xlabel="interquartile mean (0 worst row, 1 best)")
    right.axvline(0.5, color="grey", linestyle=":", linewidth=1)
    right.set(xlabel=_BEATEN, xlim=(0, 1.02))
    caption = _caption(found)
    return draw(figure, stem(found.studies[-1], "across"), caption, f"Points with intervals: {caption}", mark)


def across_note(found: Across) -> str:
    """The rows and seeds that the comparison leaves out; empty if there are none."""
    parts = []
    if found.absent:
        parts.append(f"not in every study: {'; '.join(map(describe, found.absent))}")
    if found.lost:
        parts.append(f"{found.lost} seed{'s were' if found.lost > 1 else ' was'} left out, not finished by every row")
    return f"{found.name}, over studies: {'. '.join(parts)}." if parts else ""


def _caption(found: Across) -> str:
    studies = ", ".join(f"{s.name} ({n} seed{'s' * (n > 1)})" for s, n in zip(found.studies, found.seeds, strict=True))
    few = "" if min(found.seeds) >= FEWEST_SEEDS else f" Intervals need {FEWEST_SEEDS} seeds in each study."
    return (
        f"{found.name}, over {len(found.studies)} studies: {studies}. Scores are scaled by the mean of the worst row "
        "(0) and of the best row (1) of each study. Intervals: bootstrap over seeds within studies (docs/tuning.md)."
    ) + few


def _label(value: Any) -> Entry:
    text = "none" if value is None else label(value)
    return Entry(text, value if isinstance(value, int | float | str) else text)


def _entries(each: Estimate | None) -> list[Entry]:
    if each is None:
        return [Entry(NOTHING), Entry(NOTHING)]
    value = Entry(f"{each.value:z.2f}", each.value)
    return [value, Entry(NOTHING) if math.isnan(each.low) else Entry(f"{each.low:z.2f} to {each.high:z.2f}", each.low)]


def _record(names: Sequence[str], row: AcrossRow) -> dict[str, Any]:
    record = {name: row.labels.get(name) for name in names}
    for name, each in (("iqm", row.iqm), ("probability_that_the_best_is_better", row.beaten)):
        record |= {
            name: each.value if each else None,
            f"{name}_low": each.low if each else None,
            f"{name}_high": each.high if each else None,
        }
    return record
