"""What holds for the project as a whole."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().split()
    return dict(line.split("==") for line in lines)


def test_constraints_are_bare_pins():
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.!+]*", line), line


def test_every_requirement_is_pinned_to_a_version_that_it_admits():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pinned = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pins().items()}
    for text in project["dependencies"] + project["optional-dependencies"]["test"]:
        requirement = Requirement(text)
        assert requirement.specifier.contains(pinned[requirement.name.lower()]), text


@pytest.mark.parametrize("target", re.findall(r"make [a-z-]+", (ROOT / "README.md").read_text()))
def test_the_readme_names_make_targets_that_exist(target):
    subprocess.run([*target.split(), "--dry-run"], cwd=ROOT, check=True, capture_output=True)


def test_the_readmes_example_runs_and_prints_three_numbers(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    exec(compile(code, "README.md", "exec"), {})
    numbers = capsys.readouterr().out.strip().strip("[]").split(",")
    assert len(numbers) == 3
    assert all(-60 < float(number) < 0 for number in numbers)


def test_links_between_documents_lead_somewhere():
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for name in re.findall(r"\b([a-z-]+\.md)\b", page.read_text()):
            assert (ROOT / "docs" / name).exists() or (page.parent / name).exists(), f"{page.name}: {name}"
