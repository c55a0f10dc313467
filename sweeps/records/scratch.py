"""Temporary folders on this machine. What a killed process leaves of them, the next one that makes some removes."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from sweeps.records.lock import Holder

PREFIX, OWNER = "vae-sweeps-", "owner.json"


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder that only this user can read, for the time of the context."""
    remove_leftovers(Path(tempfile.gettempdir()))
    # Where a run is interrupted, trials may still be writing.
    with tempfile.TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True) as folder:
        (Path(folder) / OWNER).write_bytes(Holder.here().to_json())
        yield Path(folder)


def remove_leftovers(place: Path) -> None:
    """Removes scratch folders in `place` of this user's processes that have ended on this host."""
    for folder in place.glob(f"{PREFIX}*"):
        # Gone meanwhile, somebody else's, or killed before it had an owner: none of it is worth a word.
        with contextlib.suppress(OSError, ValidationError):
            holder = Holder.from_json((folder / OWNER).read_bytes())
            if folder.lstat().st_uid == os.geteuid() and holder.local and not holder.lives():
                shutil.rmtree(folder, ignore_errors=True)
