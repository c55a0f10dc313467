"""Sentences that answer a study's question: which configuration is best, by how much, and with what uncertainty."""

from collections.abc import Sequence

from search_spaces.space import Study
from sweeps.analysis import cells as tables
from sweeps.analysis import claims
from sweeps.analysis.labels import describe, readable
from sweeps.analysis.metrics import metric
from sweeps.analysis.numbers import number, p_value, signed
from sweeps.analysis.statistics import ENOUGH


def answer(study: Study, found: Sequence[tables.Cell]) -> str:
    """Names the best cell of a study and its lead over the next one."""
    best = next(iter(tables.ranked(study, found)), None)
    average = best.average(study.metric) if best else None
    if best is None or average is None:
        if any(cell.finished for cell in found):
            return f"No finished training has a finite {metric(study.metric).title}."
        return "Nothing has finished yet."
    told = f"{describe(best.labels)}, " if best.labels else ""
    text = f"Best: {told}{metric(study.metric).title} {number(average.value, average.stderr)}"
    text += f" (n = {average.n})."
    if study.heatmap:
        rows, columns = study.heatmap
        place = "on" if best.labels.get(rows) == best.labels.get(columns) else "off"
        text += f" It lies {place} the diagonal ({readable(rows)} = {readable(columns)})."
    other = claims.rival(study, found)
    return f"{text} {_margin(study, best, other)}" if other else text


def _margin(study: Study, best: tables.Cell, other: tables.Cell) -> str:
    """The lead of the best cell over another."""
    on_diagonal = study.heatmap and other.labels.get(study.heatmap[0]) == other.labels.get(study.heatmap[1])
    who = "the best on the diagonal" if on_diagonal else "the next"
    text = f"Against {who} ({describe(other.labels)}): "
    comparison = claims.compare(study, best, other)
    if comparison is None:
        return f"{text}no seed has finished with both configurations."
    gain = comparison.gain
    text += f"better by {signed(gain.value)}"
    if not comparison.enough:
        return f"{text} over {gain.n} paired seed{'s' * (gain.n > 1)}; a test needs {ENOUGH} (--seeds {ENOUGH})."
    return (
        f"{text} (95 % interval {signed(gain.low)} to {signed(gain.high)}, {gain.n} paired seeds, one-sided paired "
        f"t-test p {_relation(comparison.t_p)}, Wilcoxon p {_relation(comparison.wilcoxon_p)}; both were chosen on "
        "these seeds, which favours the best)."
    )


def _relation(p: float) -> str:
    text = p_value(p)
    return text if text.startswith("<") else f"= {text}"
