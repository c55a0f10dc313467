"""Settings shared by all tests."""

import gc
import os
import signal
import subprocess
import sys
import threading

# Set before torch is imported: threads make small tensors no faster, and Ray's workers share the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Ray's workers give way to everything else; beside other tests they would hardly run.
os.environ.setdefault("RAY_worker_niceness", "0")

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from trainables.estimators import Estimator

# A shell that starts the tests in the background has them ignore Ctrl-C, and so would every command that they start.
if threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)

gc.set_threshold(20_000, 20, 20)  # as in our commands

LONGEST_FIRST = ("test_end_to_end.py", "test_old_storage.py", "test_own_studies.py")
"""Files whose tests start whole runs. What begins last should be short, so that all processes end at the same time."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in LONGEST_FIRST)


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


@pytest.fixture(scope="session")
def shipped() -> dict[str, "Estimator"]:
    """The estimators in the files of the repository: a file that somebody drops in need not be in tables of ours."""
    from trainables.estimators import ESTIMATORS  # loads torch, which most tests of commands do not need

    root = Path(__file__).parents[1]
    listed = subprocess.run(["git", "ls-files", "trainables"], cwd=root, capture_output=True, text=True, check=True)
    files = {root / line for line in listed.stdout.splitlines()}
    modules = {name: sys.modules[type(one).__module__] for name, one in ESTIMATORS.items()}
    return {name: ESTIMATORS[name] for name, module in modules.items() if Path(str(module.__file__)) in files}
