"""Every command line in the README and in docs/ is one that its program accepts; the README's are run.

A command line is a line of a block of code. `PROGRAMS` says by its first word how it is checked; other blocks must be
Python, YAML or one of the search expressions that MLflow reads.
"""

import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import pytest
import typer
from mlflow.exceptions import MlflowException
from mlflow.utils.search_utils import SearchUtils
from ray.scripts.scripts import cli as ray_cli

from sweeps.__main__ import COMMANDS
from sweeps.cli import single

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
pytestmark = pytest.mark.timeout(600)


@dataclass(frozen=True)
class Line:
    """A command line, with its continuations."""

    place: str
    """File and line."""
    text: str

    def __str__(self) -> str:
        return f"{self.place} {self.text}"


def lines_of(name: str, text: str) -> Iterator[Line]:
    """The lines of a page's blocks that are indented, or fenced as a shell's; options alone continue a line."""
    fence: str | None = None
    last: Line | None = None
    for number, line in enumerate(text.splitlines(), 1):
        mark = re.fullmatch(r"\s*```(\w*)\s*", line)
        if mark:
            fence = mark[1] if fence is None else None
        elif re.match(r" {4,}\S", line) if fence is None else fence in ("", "bash", "console", "sh"):
            if last and (last.text.endswith("\\") or (last.text.startswith("ray submit") and line.startswith("     "))):
                last = Line(last.place, f"{last.text.removesuffix(chr(92))} {line.strip()}")
            else:
                if last:
                    yield last
                last = Line(f"{name}:{number}", line.strip())
            continue
        if last:
            yield last
        last = None
    if last:
        yield last


LINES = [line for page in PAGES for line in lines_of(page.name, page.read_text())]


def parse(command: click.Command, words: Sequence[str]) -> None:
    """Lets a command read its arguments, without running it."""
    context = command.make_context(command.name, list(words))
    while isinstance(command, click.Group):
        name, inner, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        assert inner is not None
        command, context = inner, inner.make_context(name, rest, parent=context)


def python(words: Sequence[str]) -> None:
    """`python -m sweeps.NAME …` or `python sweeps/NAME.py …`."""
    module = words[1] if words[0] == "-m" else words[0].removesuffix(".py").replace("/", ".")
    package, _, name = module.partition(".")
    assert package == "sweeps"
    parse(typer.main.get_command(single(COMMANDS[name])), words[2 if words[0] == "-m" else 1 :])


def ray(words: Sequence[str]) -> None:
    """A command of Ray, and the one of ours that it is given, after -- or in quotes."""
    parse(ray_cli, words)
    own, _, rest = (list(words), "", []) if "--" not in words else _split(words)
    if own[0] == "submit":
        python([own[-1], *rest])
    elif rest:
        check(shlex.join(rest))
    elif own[0] == "exec":
        check(own[-1])
    for word in own:
        if word.endswith(".yaml"):
            assert (ROOT / word).is_file()


def _split(words: Sequence[str]) -> tuple[list[str], str, list[str]]:
    middle = list(words).index("--")
    return list(words[:middle]), "--", list(words[middle + 1 :])


def make(words: Sequence[str]) -> None:
    """The targets and variables of our Makefile."""
    subprocess.run(["make", *words, "--dry-run"], cwd=ROOT, check=True, capture_output=True)


def foreign(words: Sequence[str]) -> None:
    """A program that is not ours and that is not installed everywhere; `check` has read the line as the shell does."""


PROGRAMS: dict[str, Callable[[Sequence[str]], None]] = {
    "python": python,
    "ray": ray,
    "make": make,
    "srun": lambda words: check(shlex.join(words)),
    "pip": foreign,
    "aws": foreign,
    "export": foreign,
    "cd": foreign,
}


def check(line: str) -> None:
    """Raises or fails if a line is no command that its program accepts."""
    if re.match(r"(params|tags|metrics|attributes)\.", line):
        SearchUtils.parse_search_filter(line)
        return
    subprocess.run(["bash", "-n"], input=line, text=True, check=True, capture_output=True)
    if line.startswith("--"):
        line = f"python -m sweeps.run quickstart {line}"
    in_parentheses = re.fullmatch(r"\(umask \d+; (.*?)\)(\s+#.*)?", line)
    if in_parentheses:
        line = in_parentheses[1]
    assigned = re.fullmatch(r"\w+=\$\((.*)\)", line)
    if assigned:
        return
    words = shlex.split(re.sub(r"\$\w+", "1", line), comments=True)  # the shell's variables as numbers
    while words and re.match(r"[A-Z_]+=", words[0]):
        words.pop(0)
    if words:
        assert words[0] in PROGRAMS, f"say in PROGRAMS how to check {words[0]!r}"
        PROGRAMS[words[0]](words[1:])


REFUSALS = (
    *(AssertionError, KeyError, subprocess.CalledProcessError, MlflowException),
    *(click.ClickException, *typer.BadParameter.__bases__),  # Typer has a Click of its own
)


@pytest.mark.parametrize("line", LINES, ids=str)
def test_every_command_line_of_the_documents_is_accepted(line):
    check(line.text)


def test_the_lines_are_found():
    text = (
        "Text\n\n    make demo\n    ray submit a.yaml \\\n      b\n\n```python\nx = 1\n```\n```bash\ncd x  # y\n```\n"
    )
    assert list(lines_of("page", text)) == [
        Line("page:3", "make demo"),
        Line("page:4", "ray submit a.yaml  b"),
        Line("page:11", "cd x  # y"),
    ]
    assert {line.place.partition(":")[0] for line in LINES} >= {"README.md", "cluster.md", "mlflow.md", "new-study.md"}


@pytest.mark.parametrize(
    "line",
    [
        "python -m sweeps.run quickstart --plam",
        "python -m sweeps.walk quickstart",
        "python -m sweeps.run quickstart --seeds many",
        "ray submit --tmux cluster.yaml sweeps/run.py -- quickstart --adress auto",
        "ray exec cluster.yaml 'python -m sweeps.status --no'",
        "ray up -y nowhere.yaml",
        "ray upp",
        "srun python -m sweeps.run --lst",
        "make cake",
        "--storage",
        "npm install",
        "cd 'unfinished",
        "params.x == = 3",
    ],
)
def test_a_wrong_line_is_not_accepted(line):
    with pytest.raises(REFUSALS):
        check(line)


# --- the README's, run -----------------------------------------------------------------------------------------------

README = list(
    dict.fromkeys(
        shlex.join(shlex.split(line.text, comments=True))
        for line in LINES
        if line.place.startswith("README.md") and line.text.startswith("python -m")
    )
)
TRAINING = ("--confirm", "--only search", "--search tpe", "--scale smoke")
"""What of a line says that it trains. Such a line is run with the long tests."""


def trains(line: str) -> bool:
    return "sweeps.run" in line and any(part in line for part in TRAINING)


@pytest.fixture(scope="module")
def folder(finished_quickstart, tmp_path_factory) -> Path:
    """A folder in which the README's first command was run."""
    place = tmp_path_factory.mktemp("readme")
    shutil.copytree(finished_quickstart, place / "runs")
    return place


def test_the_readme_has_the_commands_that_are_run_here():
    assert len(README) == 16
    assert sum(map(trains, README)) == 4


@pytest.mark.timeout(4000)
@pytest.mark.parametrize(
    "line", [pytest.param(line, marks=pytest.mark.slow if trains(line) else ()) for line in README if ".ui" not in line]
)
def test_every_command_of_the_readme_works_after_the_first_run(folder, line, monkeypatch, capfd):
    words = shlex.split(line)[2:]
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as stop:
        runpy.run_module(words[0], run_name="__main__", alter_sys=True)
    code = stop.value.code
    out, err = capfd.readouterr()
    assert code == 0, out + err
    assert "Traceback" not in err
    assert out
