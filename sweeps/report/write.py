"""Writes the files that are derived from the ledger: the tables and the report."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from sweeps.analysis.frames import history_table, results_table
from sweeps.planning.plan import Member
from sweeps.planning.unfold import Unfoldings
from sweeps.records import parquet
from sweeps.records.ledger import Row
from sweeps.records.storage import Storage, joined
from sweeps.records.tables import HISTORY, RESULTS
from sweeps.report.provenance import provenance

REPORT_FOLDER = "report"
REPORT = f"{REPORT_FOLDER}/index.html"


def write_outputs(
    storage: Storage,
    unfoldings: Unfoldings,
    rows: Mapping[str, Row],
    run_ids: Mapping[tuple[str, str], str],
    data_dir: Path = Path("data"),
    links: Mapping[str, str] | None = None,
    *,
    drawn: bool = True,
) -> str:
    """Writes results.parquet, history.parquet and the report; returns the path or URI of the page.

    Args:
        data_dir: the folder of the data sets, for figures made of images.
        links: by study, the address of its members in MLflow.
        drawn: False leaves out all figures, since drawing takes seconds.
    """
    write_tables(storage, unfoldings.members(), rows, run_ids)
    return write_report(storage, unfoldings, rows, data_dir, links or {}, drawn=drawn)


def write_tables(
    storage: Storage, members: Sequence[Member], rows: Mapping[str, Row], run_ids: Mapping[tuple[str, str], str]
) -> None:
    """Writes results.parquet and history.parquet; raises UserError if the storage cannot be written."""
    tables = {RESULTS: lambda: results_table(members, rows, run_ids), HISTORY: lambda: history_table(members, rows)}
    for path, table in tables.items():  # one after the other: each may be large
        storage.write(path, parquet.encoded(pa.Table.from_pandas(table(), preserve_index=False)))


def write_report(
    storage: Storage,
    unfoldings: Unfoldings,
    rows: Mapping[str, Row],
    data_dir: Path,
    links: Mapping[str, str],
    *,
    drawn: bool = True,
) -> str:
    """Writes the report, deletes files of an earlier one, and returns the path or URI of the page."""
    from sweeps.report.html import report  # matplotlib and Optuna take a second to import
    from sweeps.report.reconstructions import Sources

    plan, members, sources = unfoldings.plan, unfoldings.members(), Sources(storage, data_dir)
    origin = provenance(storage, plan, members, rows)
    found = report(plan, members, rows, drawn, sources=sources, counted=unfoldings, provenance=origin, links=links)
    files = {f"{REPORT_FOLDER}/{path}": content for path, content in found.items()}
    for path, content in files.items():
        storage.write(path, content)
    for path in storage.list(REPORT_FOLDER, "", recursive=True):
        if path not in files:
            storage.delete(path)
    return joined(storage.full_uri, REPORT)
