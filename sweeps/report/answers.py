"""Sentences that answer a study's question: which configuration is best, by how much, and with what uncertainty."""

from collections.abc import Sequence

from search_spaces.space import Study
from sweeps.analysis import cells as tables
from sweeps.analysis import claims
from sweeps.analysis.labels import describe, readable
from sweeps.analysis.metrics import metric
from sweeps.analysis.numbers import number, p_value, signed
from sweeps.analysis.statistics import ENOUGH, LEVEL, Paired
from sweeps.report.study_table import unfinished


def answer(study: Study, found: Sequence[tables.Cell]) -> str:
    """Names the best cell of a study and its lead over the next one.

    The seeds that choose say which cell is the best; if it is confirmed, all numbers are over the fresh seeds.
    """
    best = tables.standing(study, found)
    if best is None:
        if any(cell.finished for cell in found):
            return f"No finished training has a finite {metric(study.metric).title}."
        return "Nothing has finished yet."
    told = f"{describe(best.labels)}, " if best.labels else ""
    text = f"Best: {told}{metric(study.metric).title} {_numbers(study, best)}."
    if study.heatmap:
        rows, columns = study.heatmap
        place = "on" if best.labels.get(rows) == best.labels.get(columns) else "off"
        text += f" It lies {place} the diagonal ({readable(rows)} = {readable(columns)})."
    other = claims.rival(study, found)
    text += f" {_margin(study, best, other)}" if other else ""
    return " ".join([text, *(_ahead(*each) for each in claims.ahead(study, found))])


def _numbers(study: Study, best: tables.Cell) -> str:
    """The mean of the best cell, and the seeds it is over."""
    own, fresh = best.average(study.metric), best.confirmation
    assert own is not None  # cells without a value are not ranked
    if fresh is None:
        return f"{number(own.value, own.stderr)} (n = {own.n})"
    confirmed = fresh.average(study.metric)
    chose = f"{own.n} seed{'s' * (own.n > 1)} chose it"
    if confirmed is None:
        rest = unfinished(fresh.counts)
        return f"{number(own.value, own.stderr)} ({chose}; not confirmed: of {fresh.planned} fresh seeds {rest})"
    seeds = f"{confirmed.n} of {fresh.planned}" if confirmed.n < fresh.planned else str(confirmed.n)
    rest = f": {unfinished(fresh.counts)}" if confirmed.n < fresh.planned else ""
    return f"{number(confirmed.value, confirmed.stderr)} (confirmed on {seeds} fresh seeds{rest}; {chose})"


def _ahead(other: tables.Cell, lead: Paired) -> str:
    """Says that a finalist is better than the best one on the fresh seeds."""
    gain = lead.gain
    return (
        f"On the fresh seeds the choice did not hold: {describe(other.labels)} is better by {signed(gain.value)} "
        f"(95 % interval {signed(gain.low)} to {signed(gain.high)}, p < {LEVEL} after Holm for all finalists)."
    )


def _margin(study: Study, best: tables.Cell, other: tables.Cell) -> str:
    """The lead of the best cell over another."""
    on_diagonal = study.heatmap and other.labels.get(study.heatmap[0]) == other.labels.get(study.heatmap[1])
    who = "the best on the diagonal" if on_diagonal else "the next"
    text = f"Against {who} ({describe(other.labels)}): "
    comparison = claims.compare(study, best, other)
    if comparison is None:
        return f"{text}no seed has finished with both configurations."
    gain = comparison.gain
    confirmed = best.confirmation is not None
    text += f"{'worse' if gain.value < 0 else 'better'} by {signed(gain.value)}"
    if not comparison.enough:
        option = f"--{'confirm' if confirmed else 'seeds'} {ENOUGH}"
        return f"{text} over {gain.n} paired seed{'s' * (gain.n > 1)}; a test needs {ENOUGH} ({option})."
    by = "these seeds chose neither" if confirmed else "both were chosen on these seeds, which favours the best"
    return (
        f"{text} (95 % interval {signed(gain.low)} to {signed(gain.high)}, {gain.n} paired seeds, one-sided paired "
        f"t-test p {_relation(comparison.t_p)}, Wilcoxon p {_relation(comparison.wilcoxon_p)}; {by})."
    )


def _relation(p: float) -> str:
    text = p_value(p)
    return text if text.startswith("<") else f"= {text}"
