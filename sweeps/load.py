"""python -m sweeps.load BUNDLE: adds the results in a bundle of `sweeps.export` to a storage."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from sweeps.cli import run_app, single


def load(
    bundle: Annotated[Path, typer.Argument(help="Folder that `sweeps.export` has written.")],
    storage: Annotated[str, typer.Option(metavar="URI", help="Folder or URI to add the results to.")] = "./runs",
) -> None:
    """Verifies a bundle and adds its results to a storage; changes no result that the storage has."""
    from sweeps.bundle.read import load_bundle  # takes a second to import

    found = load_bundle(bundle, storage)
    print(f"{found.sweep}: {found.members} members, {found.new} of them new in {storage}")
    if found.kept:
        print("The storage keeps its own plan: its last run had other options than the bundle's.")
    print(f"Next: {shlex.join(['python', '-m', 'sweeps.status', found.sweep, '--storage', storage])}")


if __name__ == "__main__":
    run_app(single(load), "python -m sweeps.load")
