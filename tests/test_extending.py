"""Each kind of component is one file: those of docs/extending.md, dropped into a copy, are planned and trained."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from trainables.config import TrainingConfig

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
FILES = dict(
    re.findall(r"^## [^\n]*`(\S+\.py)`\n(?:(?!## )[^\n]*\n)*?```python\n(.*?)```", PAGE, re.DOTALL | re.MULTILINE)
)
PLAIN = {
    "data": {"name": "digits", "limit": 200},
    "latent": {"family": "bernoulli", "size": 8},
    "encoder": {"name": "mlp", "hidden": (32,)},
    "decoder": {"name": "mlp", "hidden": (32,)},
    "likelihood": {"name": "gaussian_fixed"},
    "estimator": {"name": "straight_through"},
    "optim": {"name": "adam"},
    "epochs": 1,
    "batch_size": 100,
}
NEW = {
    "estimator": {"estimator": {"name": "identity_st"}},
    "scheduled estimator": {"estimator": {"name": "part_baseline"}, "epochs": 3},
    "likelihood": {"likelihood": {"name": "laplace_fixed"}},
    "optimizer": {"optim": {"name": "rmsprop"}},
    "diagnostic": {"diagnostics": {"encoder_norm": (1,)}},
    "data": {"data": {"name": "inverted", "limit": 200}},
}
TRAIN = """
import json, sys
from sweeps.analysis.metrics import metric
from trainables.config import TrainingConfig
from trainables.estimators.__main__ import table
from trainables.training import train

plain, new = json.loads(sys.argv[1])
seen = {"key": TrainingConfig.model_validate(plain).key(), "table": table(), "plain": plain}
for kind, part in {"plain": {}, **new}.items():
    (result,) = train([TrainingConfig.model_validate(plain | part)])
    seen[kind] = [result.status, result.metrics]
seen["titles"] = {name: metric(name).title for name in ("absolute_error", "encoder_norm")}
print(json.dumps(seen))
"""


def run(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """The packages with the files of the page."""
    folder = tmp_path_factory.mktemp("extended")
    for package in ("search_spaces", "sweeps", "trainables"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    for path, source in FILES.items():
        assert not (folder / path).exists()
        (folder / path).write_text(source, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def seen(copy) -> dict:
    return json.loads(run(copy, "-c", TRAIN, json.dumps([PLAIN, NEW])).splitlines()[-1])


def test_the_page_has_a_file_of_each_kind():
    assert [str(Path(path).parent) for path in FILES] == [
        "trainables/estimators",
        "trainables/estimators",
        "trainables/likelihoods",
        "trainables/optimizers",
        "trainables/diagnostics",
        "trainables/data",
        "search_spaces",
    ]


@pytest.mark.parametrize("kind", sorted(NEW))
def test_a_new_part_trains_and_gives_other_numbers_unless_it_only_measures(seen, kind):
    status, metrics = seen[kind]
    _, plain = seen["plain"]
    assert status == "finished"
    assert (metrics["elbo"] == plain["elbo"]) == (kind == "diagnostic")


def test_a_new_part_changes_no_known_key(seen):
    assert seen["key"] == TrainingConfig.model_validate(PLAIN).key()


def test_a_likelihood_and_a_diagnostic_bring_their_metrics_and_titles(seen):
    assert seen["titles"] == {"absolute_error": "absolute error", "encoder_norm": "norm of the encoder's output"}
    assert seen["likelihood"][1].keys() - seen["plain"][1].keys() == {"absolute_error"}
    assert seen["diagnostic"][1].keys() - seen["plain"][1].keys() == {"encoder_norm"}
    assert seen["likelihood"][1]["absolute_error"] > 0
    assert seen["diagnostic"][1]["encoder_norm"] > 0


def test_a_new_estimator_is_in_the_table(seen):
    assert "| `identity_st` | bernoulli, categorical | biased |" in seen["table"]


def test_a_new_estimator_passes_the_tests_of_every_estimator(copy):
    """Also one with a schedule and the running loss; no table in a test names its knobs."""
    shutil.copy(ROOT / "pyproject.toml", copy)
    shutil.copytree(ROOT / "tests" / "trainables", copy / "tests" / "trainables")
    chosen = "(identity_st or part_baseline) and not table"
    printed = run(copy, "-m", "pytest", "tests/trainables/test_estimators.py", "-k", chosen)
    assert int(re.search(r"(\d+) passed", printed)[1]) > 40


def test_a_study_of_new_parts_is_planned_without_reading_images(copy):
    data = copy / "trainables/data/inverted.py"
    whole = data.read_text(encoding="utf-8")
    data.write_text(whole.replace("    plain = ", "    raise AssertionError('the images were read')\n    plain = "))
    try:
        printed = run(copy, "-m", "sweeps.run", "my_parts", "--plan")
    finally:
        data.write_text(whole, encoding="utf-8")
    assert re.search(r"\b4\b", printed), printed
    assert not (copy / "runs").exists()
