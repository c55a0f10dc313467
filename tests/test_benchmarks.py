"""Every benchmark runs at a small size and writes its numbers; the numbers themselves are not tested."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"
SMALL = {
    "silent": ["--latents", "4", "--encoder", "mlp", "--rounds", "2", "--steps", "1"],
    "packing": ["--models", "mlp-4x8", "--steps", "1", "--rounds", "1", "--largest", "1", "--seconds", "0"],
    "convolutions": ["--layers", "residual", "--members", "2", "--rounds", "1"],
    "guide": ["--network", "mlp", "--batch-size", "4", "--steps", "1", "--rounds", "1"],
    "precision": [
        *["--models", "mlp-4x8", "--seeds", "2", "--epochs", "2", "--limit", "200"],
        *["--stand-in", "mnist=digits28", "--data-dir", "nowhere"],
    ],
    "loop": ["--images", "200", "--epochs", "1", "--workers", "0", "--data-dir", "nowhere"],
    "driver": ["--members", "20", "40", "--mlflow-members", "20"],
    "verdicts": ["--sweeps", "20"],
    "sweep_overhead": ["--epochs", "1", "--ordinary-members", "1"],
}


def run(name: str, tmp_path: Path) -> dict[str, Any]:
    """Runs a benchmark; returns the JSON that it writes."""
    file = tmp_path / "report.json"
    command = [sys.executable, str(FOLDER / f"{name}.py"), *SMALL[name], "--json", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=FOLDER.parent)
    assert done.returncode == 0, done.stderr
    return json.loads(file.read_text())


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", sorted(SMALL))
def test_benchmark(name, tmp_path):
    report = run(name, tmp_path)
    assert report["machine"]["torch"]
    assert report["rows"]
    for row in report["rows"]:
        assert all(value > 0 for value in row.values() if isinstance(value, float))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_first_of_two_ways_is_once_as_fast_as_itself(tmp_path):
    rows = run("convolutions", tmp_path)["rows"]
    assert {row["ratio"] for row in rows if row["way"] == "in_turn"} == {1.0}
    assert len({row["ratio"] for row in rows}) > 1


def benchmarks() -> set[str]:
    return {path.name for path in FOLDER.glob("*.py")} - {"measuring.py"}


def test_every_benchmark_is_listed():
    listed = (FOLDER / "README.md").read_text()
    assert benchmarks() == set(re.findall(r"^\| `python benchmarks/([a-z_]+\.py)", listed, re.M))


@pytest.mark.parametrize("option", ["--json", "--device", "--threads"])
def test_an_option_that_benchmarks_share_is_defined_once(option):
    defined = {path.name for path in FOLDER.glob("*.py") if f'add_argument("{option}"' in path.read_text()}
    assert defined == {"measuring.py"}
