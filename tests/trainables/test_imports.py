"""Which package may import which, and that importing does nothing else."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ADAPTER = "trainables.ray_train"

FORBIDDEN = {
    "trainables": {"ray", "optuna", "mlflow", "sweeps", "search_spaces"},
    "search_spaces": {"torch", "ray", "optuna", "mlflow", "sweeps", "trainables"},
}


def modules(package: str) -> list[str]:
    """Dotted names of a package's modules; `__main__` runs, it is not imported."""
    paths = sorted((ROOT / package).rglob("*.py"))
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in paths]
    return [name for name in names if not name.endswith("__main__")]


def imported(source: str) -> set[str]:
    """Top-level packages that a source imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.split(".")[0])
        elif isinstance(node, ast.ImportFrom):
            found.add("<relative>")  # style: absolute imports, so that this test sees them
    return found


def violations(package: str, path: Path, source: str) -> set[str]:
    allowed = {"ray"} if path == ROOT / (ADAPTER.replace(".", "/") + ".py") else set()
    return imported(source) & ((FORBIDDEN[package] | {"<relative>"}) - allowed)


@pytest.mark.parametrize("package", sorted(FORBIDDEN))
def test_direction_of_imports(package):
    sources = {path: path.read_text() for path in (ROOT / package).rglob("*.py")}
    assert sources
    assert {path.name: wrong for path, text in sources.items() if (wrong := violations(package, path, text))} == {}


@pytest.mark.parametrize(
    ("package", "line"),
    [
        ("trainables", "import ray"),
        ("trainables", "def f():\n    from ray import tune"),
        ("trainables", "from sweeps.planning.plan import plan"),
        ("trainables", "from . import cohort"),
        ("search_spaces", "import torch.nn as nn"),
        ("search_spaces", "from trainables.config import TrainingConfig"),
    ],
)
def test_a_wrong_import_is_found(package, line):
    assert violations(package, ROOT / package / "some.py", line)


PROBE = """
import sys

connections = []

def hook(event, args):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname"):
        connections.append("".join(repr(args).split()))

sys.addaudithook(hook)
for name in sys.argv[1:]:
    __import__(name)
print("LOADED", *sorted({name.split(".")[0] for name in sys.modules}))
print("CONNECTIONS", *connections)
print("RAY", sys.modules["ray"].is_initialized() if "ray" in sys.modules else False)
"""


def probe(names: list[str], folder: Path, home: Path | None = None) -> dict[str, list[str]]:
    """What importing these modules does in a fresh process that stands in an empty folder."""
    run = subprocess.run(
        [sys.executable, "-c", PROBE, *names],
        cwd=folder,
        env={
            "PATH": "/usr/bin:/bin",
            "HOME": str(home or folder),
            "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return {head: rest for head, *rest in map(str.split, run.stdout.splitlines()[-3:])}


@pytest.mark.parametrize("package", ["trainables", "search_spaces"])
def test_importing_loads_nothing_forbidden_and_does_nothing(package, tmp_path):
    names = [name for name in modules(package) if name != ADAPTER]
    assert names
    seen = probe(names, tmp_path)
    assert FORBIDDEN[package].isdisjoint(seen["LOADED"])
    assert seen["CONNECTIONS"] == []
    assert seen["RAY"] == ["False"]
    assert list(tmp_path.iterdir()) == []


def test_a_connection_is_seen(tmp_path):
    (tmp_path / "caller.py").write_text("import socket\nsocket.socket(socket.AF_UNIX).connect_ex('nowhere')\n")
    assert len(probe(["caller"], tmp_path)["CONNECTIONS"]) == 1


def test_importing_the_rest_starts_no_ray_and_leaves_nothing_behind(tmp_path):
    home = tmp_path / "home"  # where libraries keep caches of their own
    seen = probe([ADAPTER, *modules("sweeps")], tmp_path, home=home)
    assert "ray" in seen["LOADED"]
    assert seen["CONNECTIONS"] == []
    assert seen["RAY"] == ["False"]
    assert [path for path in tmp_path.iterdir() if path != home] == []
