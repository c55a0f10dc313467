"""Checks that the tests named in docs/reliability.md exist."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINES = (ROOT / "docs" / "reliability.md").read_text().splitlines()
ROWS = [line.strip("|").split("|") for line in LINES if line.startswith("| ")][2:]


def test_the_table_is_found():
    assert len(ROWS) > 20
    assert {len(row) for row in ROWS} == {4}


@pytest.mark.parametrize("test", [row[3] for row in ROWS], ids=lambda test: test.rpartition("::")[2].strip(" `"))
def test_every_fault_is_shown_by_a_test_that_exists(test):
    found = re.fullmatch(r" `(tests/[a-z_/]+\.py)::(test_\w+)` ", test)
    assert found, test
    path, name = found.groups()
    tree = ast.parse((ROOT / path).read_text())
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
