"""Settings shared by all tests."""

import os
import signal

# A shell's background job ignores Ctrl-C, and the processes that tests start would inherit this.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Set before torch is imported: threads make small tensors no faster, and Ray's workers share the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with links to the real data sets beside the checkout (or in `VAE_SWEEPS_DATA`); skips without them.

    It is a new folder, because loading stores a data set in a second form beside its files.
    """
    source = Path(os.environ.get("VAE_SWEEPS_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not (source / "MNIST" / "raw").is_dir():
        pytest.skip(f"no real data sets in {source}")
    folder = tmp_path_factory.mktemp("data")
    for entry in source.resolve().iterdir():
        if entry.name != "arrow":
            (folder / entry.name).symlink_to(entry)
    return folder
