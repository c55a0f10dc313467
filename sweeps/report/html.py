"""Puts the report together: one HTML file with everything inside."""

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jinja2

from search_spaces.space import Study
from sweeps.ledger import Row
from sweeps.plan import Member, Plan
from sweeps.progress import describe
from sweeps.report import figures, tables

UNITS = {
    "bits_per_dim": "bits/dim",
    "elbo": "ELBO [nats]",
    "kl": "KL [nats]",
    "mse": "squared error",
    "bce": "BCE [nats]",
}


@dataclass(frozen=True)
class Section:
    """One study as the template wants it."""

    study: Study
    finished: int
    planned: int
    headings: list[str]
    rows: list[list[str]]
    verdict: str
    heatmap: str | None
    """PNG, base64."""
    failures: list[tuple[str, str]]


def render(plan: Plan, members: Sequence[Member], rows: Mapping[str, Row]) -> bytes:
    """The report of a sweep from its members and the ledger's rows."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("sweeps.report", "."), autoescape=True, undefined=jinja2.StrictUndefined
    )
    sections = [_section(study, [m for m in members if m.study == study.name], rows) for study in plan.studies]
    settings = dict(plan.overrides.values)
    return (
        environment.get_template("index.html").render(sweep=plan.sweep, sections=sections, settings=settings).encode()
    )


def _section(study: Study, members: Sequence[Member], rows: Mapping[str, Row]) -> Section:
    found = tables.cells(study, members, rows)
    best = next(iter(tables.ranked(study, found)), None)
    metrics = [name for name in tables.SHOWN if any(name in cell.mean for cell in found)]
    names = list(dict.fromkeys(name for cell in found for name in cell.labels))
    ended = [(member, rows[member.key]) for member in members if member.key in rows]
    return Section(
        study=study,
        finished=sum(row.status != "failed" for _, row in ended),
        planned=study.search.members if study.search else len(members),
        headings=[name.rpartition(".")[2].replace("_", " ") for name in names]
        + [UNITS[name] for name in metrics]
        + ["seeds"],
        rows=[
            [_label(cell.labels.get(name)) for name in names]
            + [_number(cell, name) for name in metrics]
            + [str(cell.n) if cell.n == cell.planned else f"{cell.n} of {cell.planned}"]
            for cell in tables.compared(study, found)
        ],
        verdict=_verdict(study, best),
        heatmap=base64.b64encode(figures.heatmap(study, found, best)).decode() if study.heatmap and best else None,
        failures=[
            (f"{describe(member.labels)}, seed {member.config.seed}", f"{row.reason} in epoch {row.epochs}")
            for member, row in ended
            if row.status == "failed"
        ],
    )


def _label(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)


def _number(cell: tables.Cell, metric: str) -> str:
    if metric not in cell.mean:
        return ""
    error = cell.stderr[metric]
    return f"{cell.mean[metric]:.3f}" + ("" if math.isnan(error) else f" ± {error:.3f}")


def _verdict(study: Study, best: tables.Cell | None) -> str:
    """Which cell is best, in one sentence."""
    if best is None:
        return "Nothing has finished yet."
    text = f"Best: {describe(best.labels)}, {UNITS[study.metric]} {_number(best, study.metric)}."
    if study.heatmap:
        rows, columns = (best.labels[name] for name in study.heatmap)
        place = "on" if rows == columns else "off"
        text += f" It lies {place} the diagonal of equal temperatures."
    return text
