"""Settings shared by all tests."""

import os
import signal

# A background job of a shell ignores Ctrl-C, and so would the processes that tests start and interrupt.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Before torch is imported: small tensors are no faster with two threads, and Ray starts workers of its own.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Links to the real data sets beside the checkout (or in `VAE_SWEEPS_DATA`); skips where there are none.

    In a folder of its own, since data sets are stored in a second form where they lie.
    """
    source = Path(os.environ.get("VAE_SWEEPS_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not (source / "MNIST" / "raw").is_dir():
        pytest.skip(f"no real data sets in {source}")
    folder = tmp_path_factory.mktemp("data")
    for entry in source.resolve().iterdir():
        if entry.name != "arrow":
            (folder / entry.name).symlink_to(entry)
    return folder
