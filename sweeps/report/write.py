"""Writes the files that are derived from the ledger: the tables and the report."""

from collections.abc import Mapping
from pathlib import Path

from sweeps.analysis import frames
from sweeps.planning.unfold import Unfoldings
from sweeps.records.ledger import Row
from sweeps.records.storage import Storage, joined
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
) -> str:
    """Writes results.parquet, history.parquet and the report; returns the path or URI of the page.

    Args:
        data_dir: the folder of the data sets, for figures made of images.
        links: by study, the address of its members in MLflow.
    """
    members = unfoldings.members()
    frames.write(storage, frames.RESULTS, frames.results_table(members, rows, run_ids))
    frames.write(storage, frames.HISTORY, frames.history_table(members, rows))
    return write_report(storage, unfoldings, rows, data_dir, links or {})


def write_report(
    storage: Storage, unfoldings: Unfoldings, rows: Mapping[str, Row], data_dir: Path, links: Mapping[str, str]
) -> str:
    """Writes the report, deletes files of an earlier one, and returns the path or URI of the page."""
    from sweeps.report.html import report  # matplotlib and Optuna take a second to import
    from sweeps.report.reconstructions import Sources

    plan, members, sources = unfoldings.plan, unfoldings.members(), Sources(storage, data_dir)
    origin = provenance(storage, plan, members, rows)
    found = report(plan, members, rows, sources=sources, counted=unfoldings, provenance=origin, links=links)
    files = {f"{REPORT_FOLDER}/{path}": content for path, content in found.items()}
    for path, content in files.items():
        storage.write(path, content)
    for path in storage.list(REPORT_FOLDER, "", recursive=True):
        if path not in files:
            storage.delete(path)
    return joined(storage.full_uri, REPORT)
