"""A small number of the random inputs of `python -m tests.fuzz`; docs/security.md has the figures of a large one."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_random_inputs_are_accepted_or_refused_in_one_line_and_start_and_write_nothing():
    command = [sys.executable, "-m", "tests.fuzz", "--count", "60", "--seed", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "60 inputs, seed 1: 0 tracebacks, 0 writes outside, 0 processes started" in done.stdout
