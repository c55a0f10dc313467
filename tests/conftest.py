"""Settings shared by all tests."""

import os

# Before torch is imported: small tensors are no faster with two threads, and Ray starts workers of its own.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from pathlib import Path

import pytest


@pytest.fixture
def real_data() -> Path:
    """The folder of real data sets beside the checkout (or `VAE_SWEEPS_DATA`); skips where there is none."""
    folder = Path(os.environ.get("VAE_SWEEPS_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not (folder / "MNIST" / "raw").is_dir():
        pytest.skip(f"no real data sets in {folder}")
    return folder
