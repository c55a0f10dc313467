"""Assembles the report: one page that contains everything, and its figures and tables as separate files."""

import base64
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import jinja2
from markupsafe import Markup

from search_spaces.space import Study
from sweeps.analysis import cells as tables
from sweeps.analysis import claims
from sweeps.analysis.across import across
from sweeps.analysis.across import tables as across_tables
from sweeps.analysis.claims import Tested
from sweeps.analysis.failures import failure
from sweeps.analysis.labels import describe
from sweeps.analysis.paper import printed
from sweeps.analysis.verdicts import Verdict, rule
from sweeps.planning.plan import Counted, Member, Plan
from sweeps.records.ledger import Row
from sweeps.report import exports
from sweeps.report.across import across_figure, across_note, across_table
from sweeps.report.aligned import cells
from sweeps.report.answers import answer
from sweeps.report.claims_table import claims_table
from sweeps.report.drawing import Drawing, style
from sweeps.report.figures import figures, not_measured
from sweeps.report.marks import marks, short
from sweeps.report.members import Explorer, explorer
from sweeps.report.packed import packed, packed_json
from sweeps.report.provenance import Provenance
from sweeps.report.reconstructions import Sources, image_figures
from sweeps.report.search_plots import importance_plot, search_plots
from sweeps.report.study_table import study_table, unfinished, unmatched
from sweeps.report.table import Table, stem
from sweeps.report.tuning import tuning

PAGE = "index.html"
_ROWS = 500
"""Rows of a table on the page; its CSV file has all."""
_LISTED = 20
"""Failures of a study listed on the page; the others are in results.parquet."""


@dataclass(frozen=True)
class Section:
    """The content of one study, for the template."""

    study: Study
    anchor: str
    counts: str
    """The numbers of finished and unfinished members."""
    answer: str
    """The best configuration and its lead."""
    mark: str
    tables: list[Table]
    drawings: list[Drawing]
    search: list[Drawing]
    """Optuna's plots."""
    notes: list[str]
    """What the section does not show, and why."""
    verdicts: list[Tested]
    failures: list[str]
    explorer: Explorer | None = None
    """The members, for the page's script."""
    link: str = ""
    """The address of the members in MLflow's user interface; empty if unknown."""


def report(
    plan: Plan,
    members: Sequence[Member],
    rows: Mapping[str, Row],
    drawn: bool = True,
    sources: Sources | None = None,
    counted: Counted | None = None,
    provenance: Provenance | None = None,
    links: Mapping[str, str] | None = None,
) -> dict[str, bytes]:
    """The files of a report, with the page, by their path in its folder.

    Args:
        plan: the plan that was run.
        members: the known members.
        rows: the ledger's rows by key.
        drawn: False leaves out all figures.
        sources: checkpoints and images, for figures made of images; None leaves out these figures.
        counted: the present number of members of each study; None for the planned number.
        provenance: the origin of the results, for the foot of the page; None leaves it out.
        links: by study, the address of its members in MLflow.
    """
    with style():
        sections = [
            _section(plan, study, [m for m in members if m.study == study.name], rows, drawn, sources, counted or plan)
            for study in plan.studies
        ]
        sections = _with_tables_across(sections, members, rows, drawn)
    done = {member.study for member in members if member.key in rows and rows[member.key].status == "finished"}
    linked = {study: link for study, link in (links or {}).items() if study in done}
    sections = [replace(section, link=linked.get(section.study.name, "")) for section in sections]
    files = {PAGE: _page(plan, sections, provenance)}
    for section in sections:
        for drawing in (*section.drawings, *section.search):
            files[f"figures/{drawing.name}.png"] = drawing.png
            files[f"figures/{drawing.name}.pdf"] = drawing.pdf
        for table in section.tables:
            files[f"tables/{table.name}.csv"] = exports.csv(table)
            files[f"tables/{table.name}.tex"] = exports.latex(table)
    return files


def _with_tables_across(
    sections: Sequence[Section], members: Sequence[Member], rows: Mapping[str, Row], drawn: bool
) -> list[Section]:
    """The sections; the last study of each table over several studies has their comparison too."""
    by_name = {section.study.name: section for section in sections}
    for name, studies in across_tables([section.study for section in sections]).items():
        found = across(name, studies, {study.name: tables.cells(study, members, rows) for study in studies})
        if found is None:
            continue
        last = by_name[found.studies[-1].name]
        mark = next((by_name[s.name].mark for s in found.studies if by_name[s.name].mark), "")
        by_name[last.study.name] = replace(
            last,
            tables=[*last.tables, across_table(found, mark)],
            drawings=[*last.drawings, *([across_figure(found, mark)] if drawn else [])],
            notes=[*last.notes, *filter(None, [across_note(found)])],
        )
    return list(by_name.values())


def _page(plan: Plan, sections: Sequence[Section], provenance: Provenance | None) -> bytes:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    folder = Path(__file__).parent
    style, script = (folder / "page.css").read_text(), (folder / "page.js").read_text()
    libraries = (folder / "libraries" / "bundle.js").read_bytes()
    environment.filters["base64"] = lambda content: base64.b64encode(content).decode()
    environment.filters["packed"] = packed_json
    environment.filters["cells"] = cells
    environment.globals["verdicts"] = _tally
    environment.globals["zip"] = zip
    page = environment.get_template("page.html.jinja").render(
        sweep=plan.sweep,
        sections=sections,
        marks=_marked(sections),
        settings=plan.overrides,
        kept_seeds=plan.kept_seeds,
        rule=rule(plan.overrides.confirm is not None),
        provenance=provenance,
        style=Markup(style),
        script=Markup(script),
        libraries=packed(libraries),
        paths={heading: path for each in sections for table in each.tables for heading, path in table.paths.items()},
        policy=_policy(style.encode(), [script.encode(), libraries]),
    )
    return page.encode()


def _policy(style: bytes, scripts: Sequence[bytes]) -> str:
    """The page's Content-Security-Policy: its own style and scripts, known by their hashes, and embedded images."""

    def hashes(contents: Sequence[bytes]) -> str:
        return " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(each).digest()).decode()}'" for each in contents)

    return f"default-src 'none'; img-src data:; style-src {hashes([style])}; script-src {hashes(scripts)}"


def _marked(sections: Sequence[Section]) -> dict[str, list[Section]]:
    """The studies that are not comparable with the paper, by reason."""
    found: dict[str, list[Section]] = {}
    for section in sections:
        if section.mark:
            found.setdefault(section.mark, []).append(section)
    return found


def _section(
    plan: Plan,
    study: Study,
    members: Sequence[Member],
    rows: Mapping[str, Row],
    drawn: bool,
    sources: Sources | None,
    counted: Counted,
) -> Section:
    found = tables.cells(study, members, rows)
    mark = short(marks(plan, study))
    drawings, extra = figures(study, found, mark) if drawn else ([], [])
    search, notes = search_plots(study, found, mark) if drawn and study.search else ([], [])
    images, missing = image_figures(study, found, mark, sources) if drawn and sources else ([], [])
    tuned, losses, needs = tuning(study, found, mark, drawn)
    notes += [needs] if needs else []
    important, shares = importance_plot(study, found, mark, drawn)
    verdicts = claims.tested(study, found)
    notes += not_measured(study, found)
    if absent := unmatched(study, found):
        notes.append(f"{len(absent)} of {len(printed(study))} published numbers have no row or column in this run.")
    shown = [
        study_table(study, found, mark),
        *([claims_table(study, verdicts, mark)] if verdicts else []),
        *extra,
        *losses,
        *shares,
    ]
    return Section(
        study=study,
        anchor=stem(study),
        counts=_counts(counted.size(study), members, rows),
        answer=answer(study, found),
        mark=mark,
        tables=[table.first(_ROWS) for table in shown],
        drawings=[*drawings, *tuned, *important, *images],
        search=search,
        notes=[*notes, *missing],
        verdicts=verdicts,
        failures=_failures(members, rows),
        explorer=explorer(study, found) if drawn else None,
    )


def _counts(total: int, members: Sequence[Member], rows: Mapping[str, Row]) -> str:
    counts = Counter(rows[member.key].status for member in members if member.key in rows)
    counts["missing"] = total - counts.total()
    rest = unfinished(counts)
    return f"{counts['finished']} of {total} trainings finished" + (f"; {rest}" if rest else "")


def _failures(members: Sequence[Member], rows: Mapping[str, Row]) -> list[str]:
    failed = [(member, rows[member.key]) for member in members if member.key in rows]
    lines = [
        f"{describe(member.labels)}, seed {member.config.seed}: {failure(row)}"
        for member, row in failed
        if row.status == "failed"
    ]
    left = len(lines) - _LISTED
    return lines if left <= 0 else [*lines[:_LISTED], f"and {left} more; results.parquet has their reasons"]


def _tally(section: Section) -> str:
    """The number of a study's claims with each verdict."""
    if not section.verdicts:
        return ""
    counts = Counter(test.verdict for test in section.verdicts)
    return ", ".join(f"{verdict}: {counts[verdict]}" for verdict in Verdict if counts[verdict])
