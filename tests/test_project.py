"""Checks of the project as a whole."""

import ast
import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import pytest
import typer
from packaging.requirements import Requirement

from sweeps.__main__ import COMMANDS
from sweeps.cli import single

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PACKAGES = ("search_spaces", "sweeps", "trainables")


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
    for page in PAGES:
        for name in re.findall(r"\b([a-z-]+\.md)\b", page.read_text()):
            assert (ROOT / "docs" / name).exists() or (page.parent / name).exists(), f"{page.name}: {name}"


def written_commands() -> list[tuple[str, str]]:
    """(page, command) for every `python -m sweeps.…` and `sweeps/run.py -- …` in the documents, without its comment."""
    found = []
    for page in PAGES:
        text = re.sub(r"(--device cuda)\n +", r"\1 ", page.read_text())  # one command spans two lines
        for match in re.finditer(r"(?:python -m sweeps\.([a-z]+)|sweeps/run.py --)( [^\n`']*)?", text):
            found.append((page.name, (match[1] or "run") + re.sub(r" +# .*", "", match[2] or "")))
    return sorted(set(found))


@pytest.mark.parametrize(("page", "command"), written_commands())
def test_the_parser_accepts_every_command_in_the_documents(page, command):
    name, *arguments = shlex.split(command)
    typer.main.get_command(single(COMMANDS[name])).make_context(
        name,
        arguments,
        resilient_parsing=not arguments,  # a sentence may name a command without its required arguments
    )


def folder_sentences() -> dict[str, str]:
    """The first paragraph of each folder's `__init__`, in one line, by folder."""
    found = {}
    for package in PACKAGES:
        for path in (ROOT / package).rglob("__init__.py"):
            docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
            found[str(path.parent.relative_to(ROOT))] = " ".join(docstring.split("\n\n")[0].split())
    return found


def test_the_readme_says_of_every_folder_what_its_docstring_says():
    listed, package = {}, ""
    for indent, folder, sentence in re.findall(r"^( *)- `([a-z_]+)/`: (.*)$", (ROOT / "README.md").read_text(), re.M):
        package = package if indent else folder
        listed[f"{package}/{folder}" if indent else folder] = sentence
    assert listed == folder_sentences()
