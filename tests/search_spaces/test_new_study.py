"""Plans and trains the example of docs/new-study.md, unchanged, as a file of `search_spaces`."""

import importlib
import math
import re
import sys
from pathlib import Path

import pytest

import search_spaces
from search_spaces import get_sweep, list_sweeps
from search_spaces.catalogue import known_sweeps
from sweeps.planning.plan import Overrides, Plan
from trainables.training import train

PAGE = Path(__file__).parents[2] / "docs" / "new-study.md"
NAME = "my_gap"


@pytest.fixture(scope="module")
def source():
    (example,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    return example


@pytest.fixture
def sweep(source, tmp_path, monkeypatch):
    """The example's sweep, loaded from a folder that is part of the package during a test."""
    (tmp_path / f"{NAME}.py").write_text(source, encoding="utf-8")
    monkeypatch.setattr(search_spaces, "__path__", [*search_spaces.__path__, str(tmp_path)])
    importlib.invalidate_caches()
    known_sweeps.cache_clear()
    yield get_sweep(NAME)
    known_sweeps.cache_clear()
    sys.modules.pop(f"search_spaces.{NAME}")
    vars(search_spaces).pop(NAME)


def test_the_example_is_one_file_of_at_most_thirty_lines(source):
    assert len(source.splitlines()) <= 30


def test_without_the_file_there_is_no_such_sweep():
    assert NAME not in list_sweeps()


def test_the_example_plans_what_it_says_and_trains(sweep):
    plan = Plan(sweep)
    assert plan.total() == 16
    tiny = Plan(sweep, Overrides(values=(("epochs", 3),), seeds=1))
    (members,) = tiny.members.values()
    assert {(member.config.estimator.gap, member.config.estimator.temperature) for member in members} == {
        (gap, temperature) for gap in (0.0, 0.5, 1.0, 2.0) for temperature in (0.5, 1.0)
    }
    results = train([member.config for member in members])
    assert [result.status for result in results] == ["finished"] * len(members)
    assert all(math.isfinite(result.metrics["elbo"]) for result in results)
    # Different gaps give different gradients, so the varied field reaches the training.
    assert len({result.metrics["elbo"] for result in results}) == len(members)


def test_files_the_page_points_to_exist():
    root = PAGE.parents[1]
    pointed = set(re.findall(r"`?([\w/]+\.(?:py|md|toml))`?", PAGE.read_text(encoding="utf-8")))
    pointed -= {f"search_spaces/{NAME}.py"}
    assert {"docs/diagnostics.md", "silent_gradients.py", "published/silent_gradients.toml"} <= pointed
    assert [path for path in pointed if not ((root / path).exists() or (root / "search_spaces" / path).exists())] == []
