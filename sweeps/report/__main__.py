"""python -m sweeps.report NAME: writes the report again from the ledger."""

from pathlib import Path
from typing import Annotated

import typer

from sweeps.cli import Studies, run_app, single


def report(
    name: Annotated[str, typer.Argument(help="Name of the sweep.")],
    storage: Annotated[str, typer.Option(help="Folder or URI where the sweep was run.")] = "./runs",
    studies: Studies = None,
    data_dir: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the data sets.")] = Path("data"),
) -> None:
    """Writes results.parquet, history.parquet and the report of a sweep from its ledger."""
    from sweeps.planning import saved
    from sweeps.planning.unfold import unfold
    from sweeps.records.ledger import UnchangedLedger
    from sweeps.records.storage import Storage
    from sweeps.records.tables import known_run_ids
    from sweeps.report.write import write_outputs
    from sweeps.tracking.links import links_of_storage

    place = Storage(storage, name)
    plan = saved.last_plan(place, studies)
    ledger = UnchangedLedger(place)
    run_ids = known_run_ids(place)
    links = links_of_storage(place, plan.studies)
    print(write_outputs(place, unfold(plan, ledger), ledger.read(), run_ids, data_dir, links))


if __name__ == "__main__":
    run_app(single(report), "python -m sweeps.report")
