"""python -m sweeps.export NAME --out DIR: writes the results of a sweep as a bundle that can be cited and loaded."""

from pathlib import Path
from typing import Annotated

import typer

from sweeps.cli import Studies, run_app, single


def export(
    name: Annotated[str, typer.Argument(help="Name of the sweep.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="The new folder.")],
    storage: Annotated[str, typer.Option(metavar="URI", help="Folder or URI where the sweep was run.")] = "./runs",
    studies: Studies = None,
    data_dir: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the data sets.")] = Path("data"),
) -> None:
    """Writes results, configurations, versions, tables, figures and the ledger of a sweep into a new folder.

    The folder is described in RO-Crate. `sweeps.load` adds its results to another storage.
    """
    from sweeps.bundle.write import write_bundle  # takes a second to import
    from sweeps.records.storage import Storage

    written = write_bundle(Storage(storage, name), out, data_dir, studies)
    print(f"{out}: {written.finished} of {written.members} members finished, {written.files} files")


if __name__ == "__main__":
    run_app(single(export), "python -m sweeps.export")
