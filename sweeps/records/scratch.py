"""Temporary folders on this machine. Leftovers of killed processes are removed at the next use."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Generator
from pathlib import Path

from pydantic import ValidationError

from sweeps.records.lock import Holder

PREFIX, OWNER = "vae-sweeps-", "owner.json"


@contextlib.contextmanager
def scratch_folder() -> Generator[Path, None, None]:
    """Makes a folder that only this user can read; deletes it at the end of the context."""
    remove_leftovers(Path(tempfile.gettempdir()))
    # Errors are ignored: after an interruption, trials may still be writing here.
    with tempfile.TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True) as folder:
        (Path(folder) / OWNER).write_bytes(Holder.here().to_json())
        yield Path(folder)


@contextlib.contextmanager
def private_temporary_files() -> Generator[Path, None, None]:
    """Puts all temporary files of this process into one scratch folder, also those that libraries make.

    A killed process then leaves nothing that the next one does not remove: MLflow writes models to temporary folders.
    Ray looks at the environment alone, so that its folders stay where they were.
    """
    before = tempfile.tempdir
    with scratch_folder() as folder:
        tempfile.tempdir = str(folder)
        try:
            yield folder
        finally:
            tempfile.tempdir = before


def remove_leftovers(place: Path) -> None:
    """Removes scratch folders in `place` if they belong to an ended process of this user on this host."""
    for folder in place.glob(f"{PREFIX}*"):
        # Errors are ignored: the folder is gone meanwhile, belongs to another user, or has no owner file yet.
        with contextlib.suppress(OSError, ValidationError):
            holder = Holder.from_json((folder / OWNER).read_bytes())
            if folder.lstat().st_uid == os.geteuid() and holder.local and not holder.lives():
                shutil.rmtree(folder, ignore_errors=True)
