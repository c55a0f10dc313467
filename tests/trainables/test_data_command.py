"""Unusable data sets on the command line give one line and exit code 2 before Ray starts."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]

RUN = """
import atexit, sys
atexit.register(lambda: print("RAY", "ray" in sys.modules and sys.modules["ray"].is_initialized()))
from sweeps.cli import run_app, single
from sweeps.run import run
run_app(single(run), "run")
"""


def run(folder: Path, *arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a run in a folder; Python finds the folder's modules first."""
    done = subprocess.run(
        [sys.executable, "-c", RUN, "quickstart", *arguments],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "HOME": str(folder), "PYTHONPATH": f"{folder}:{ROOT}", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("npz:/nowhere.npz", None, "data set 'npz:/nowhere.npz': there is no nowhere.npz in /"),
        ("npz:own.npz", {"images": np.zeros((9, 8, 8), np.uint8)}, "own.npz has no 'train_images'; it has 'images'"),
        ("mnist", None, "data set 'mnist': there is no train-images-idx3-ubyte.gz in {}/data/MNIST/raw"),
        ("imagenet32", None, "put train_data_batch_1.npz to train_data_batch_10.npz and val_data.npz there"),
    ],
    ids=["missing archive", "wrong key", "mnist", "imagenet32"],
)  # fmt: skip
def test_unusable_data_end_with_one_line(tmp_path, name, content, message):
    (tmp_path / "data").mkdir()
    np.savez(tmp_path / "data" / "own.npz", **(content or {}))
    code, out, err = run(tmp_path, "--set", f"data.name={name}")
    assert code == 2
    assert out == "RAY False\n"
    assert err.count("\n") == 1
    assert message.format(tmp_path) in err


def test_a_download_that_fails_ends_with_one_line(tmp_path):
    # Python imports this file when it starts.
    (tmp_path / "sitecustomize.py").write_text(
        "import urllib.request\n"
        "def refuse(*arguments, **options): raise OSError('no network here')\n"
        "urllib.request.urlopen = refuse\n"
    )
    code, out, err = run(tmp_path, "--set", "data.name=cifar10", "--download")
    assert code == 2
    assert out == "RAY False\n"
    assert "data set 'cifar10': the download to" in err
    assert "no network here" in err
    assert err.count("\n") == 1
    assert list((tmp_path / "data").iterdir()) == []
