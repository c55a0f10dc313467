"""Checks imports: their order, no circles, libraries only in their files, and no side effects."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from imports import ORDER, ROOT, Graph, Import, floors, room

ADAPTER = "trainables.ray_train"

FORBIDDEN = {
    "trainables": {"ray", "optuna", "mlflow", "sweeps", "search_spaces"},
    "search_spaces": {"torch", "ray", "optuna", "mlflow", "sweeps", "trainables"},
}
"""Libraries that importing a package must not load."""

GUARDS: dict[str, Callable[[Graph], list[Import]]] = {
    "order": Graph.arrows_up,
    "circles": lambda graph: [each for circle in graph.circles() for each in circle],
    "circles of rooms": lambda graph: [each for circle in graph.circles_of_rooms() for each in circle],
    "libraries": Graph.strangers,
    "private modules": Graph.private,
    "computed names": Graph.computed_names,
    "inside functions": Graph.needless_late,
    "storage": lambda graph: [each for each in graph.inner if _reads_in_analysis(each)],
}


def _reads_in_analysis(each: Import) -> bool:
    return room(each.importer) == "sweeps.analysis" and each.target == "sweeps.records.storage"


@pytest.fixture(scope="module")
def graph() -> Graph:
    return Graph()


def lines(guard: str, graph: Graph) -> list[str]:
    return [str(each) for each in GUARDS[guard](graph)]


@pytest.mark.parametrize("guard", GUARDS)
def test_imports_keep_the_rules(guard, graph):
    assert lines(guard, graph) == []


PLANTED = [
    ("order", "trainables/config.py", "from trainables.training import train"),
    ("order", "trainables/latents.py", "from trainables.likelihoods import LIKELIHOODS"),
    ("order", "trainables/data/planted.py", "from sweeps.planning.plan import Plan"),
    ("order", "trainables/registry.py", "def f():\n    import trainables.config"),
    ("order", "search_spaces/planted.py", "from trainables.config import TrainingConfig"),
    ("order", "search_spaces/scale.py", "from search_spaces import quickstart"),
    ("order", "search_spaces/planted.py", "from search_spaces import quickstart"),
    ("order", "sweeps/records/planted.py", "from sweeps.planning import plan"),
    ("order", "sweeps/records/planted.py", "from ..planning import plan"),
    ("order", "sweeps/planning/planted.py", "def f():\n    from sweeps import status"),
    ("order", "sweeps/report/planted.py", "if TYPE_CHECKING:\n    from sweeps.tracking.tracker import Tracker"),
    ("order", "sweeps/tracking/planted.py", "import importlib\nimportlib.import_module('sweeps.driver.launch')"),
    ("order", "sweeps/report/planted.py", "import importlib\nimportlib.import_module('..driver', __package__)"),
    ("order", "sweeps/report/planted.py", "from importlib import import_module as f\nf('..driver', 'sweeps.report')"),
    ("order", "sweeps/status.py", "from sweeps.run import run"),
    ("libraries", "trainables/planted.py", "import ray"),
    ("libraries", "sweeps/tracking/planted.py", "import sqlite3"),
    ("libraries", "trainables/planted.py", "def f():\n    from ray import tune"),
    ("libraries", "search_spaces/planted.py", "import torch.nn as nn"),
    ("libraries", "sweeps/driver/planted.py", "from ray import tune"),
    ("libraries", "sweeps/report/planted.py", "import mlflow.entities"),
    ("libraries", "sweeps/planning/planted.py", "from optuna.trial import create_trial"),
    ("libraries", "sweeps/planning/planted.py", "__import__('mlflow')"),
    ("libraries", "sweeps/report/planted.py", "from importlib import import_module as load\nload('mlflow')"),
    ("libraries", "sweeps/report/planted.py", "import importlib\nimportlib.import_module(name='mlflow')"),
    ("libraries", "sweeps/planted.py", "import tests.imports"),
    ("libraries", "trainables/planted.py", "from tests import oracles"),
    ("computed names", "sweeps/report/planted.py", "import importlib\nimportlib.import_module(f'ml{FLOW}')"),
    ("computed names", "sweeps/report/planted.py", "name = 'mlflow'\n__import__(name=name)"),
    ("computed names", "trainables/planted.py", "import importlib\nimportlib.import_module('.data', PACKAGE)"),
    ("storage", "sweeps/analysis/planted.py", "from sweeps.records.storage import Storage"),
    ("private modules", "sweeps/on_ray/planted.py", "from ray._private import worker"),
    ("private modules", "sweeps/on_ray/planted.py", "import ray\nray._private.worker"),
    ("private modules", "sweeps/on_ray/planted.py", "import ray\ngetattr(ray, '_private')"),
    ("private modules", "sweeps/on_ray/planted.py", "from ray._raylet import GcsClient"),
    ("private modules", "sweeps/on_ray/planted.py", "import ray.experimental.internal_kv"),
    ("private modules", "sweeps/tracking/planted.py", "from mlflow.store.tracking.dbmodels.models import SqlRun"),
    ("private modules", "trainables/planted.py", "from torch._inductor import config"),
    ("private modules", "sweeps/tracking/planted.py", "from mlflow import MlflowClient\nMlflowClient._log"),
    ("inside functions", "sweeps/driver/planted.py", "def f():\n    from pathlib import Path"),
    ("inside functions", "sweeps/driver/planted.py", "import ray\ndef f():\n    import ray"),
    ("inside functions", "sweeps/driver/planted.py", "import trainables.config\ndef f():\n    import torch"),
    (
        "inside functions",
        "trainables/planted.py",
        "class C:\n    def f(self):\n        from trainables import registry",
    ),
]


@pytest.mark.parametrize(("guard", "path", "source"), PLANTED)
def test_a_planted_violation_is_named_by_file_and_line(guard, path, source, graph):
    text = f"'''A planted module.'''\n{source}\n"
    before = lines(guard, graph)
    (line,) = (line for line in lines(guard, Graph(planted={path: text})) if line not in before)
    assert line.startswith(f"{path}:{len(text.splitlines())}: ")


@pytest.mark.parametrize("within", ["from sweeps.records import other", "def f():\n    import sweeps.records.other"])
def test_a_circle_is_named_by_all_of_its_lines(within):
    planted = {"sweeps/records/planted.py": within, "sweeps/records/other.py": "import sweeps.records.planted"}
    graph = Graph(planted=planted)
    assert [line.partition(": ")[0] for line in lines("circles", graph)] == [
        f"sweeps/records/planted.py:{within.count(chr(10)) + 1}",
        "sweeps/records/other.py:1",
    ]
    assert lines("circles of rooms", graph) == []


def test_a_circle_of_rooms_is_named_by_the_lines_that_close_it():
    planted = {"sweeps/records/low.py": "import sweeps.planning.high", "sweeps/planning/high.py": ""}
    graph = Graph(planted={**planted, "sweeps/planning/other.py": "import sweeps.records.storage"})
    assert lines("circles", graph) == []
    assert lines("circles of rooms", graph) == [
        "sweeps/records/low.py:1: sweeps.records.low imports sweeps.planning.high"
    ]


def test_a_slow_library_may_be_imported_late():
    planted = {"sweeps/driver/planted.py": "def f():\n    from sweeps.on_ray import execute"}
    assert not any("planted" in line for line in lines("inside functions", Graph(planted=planted)))


def test_every_room_has_a_module(graph):
    named = {f"{package}.{name}" for package, order in ORDER.items() for line in order for name in line.split()}
    assert named <= {room(module) for module in graph.modules}


def test_a_module_that_the_order_does_not_name_imports_all_and_is_imported_by_none(graph):
    planted = {"sweeps/planted.py": "import sweeps.run\nimport sweeps.cli", "sweeps/ui.py": "import sweeps.planted"}
    assert set(lines("order", Graph(planted=planted))) - set(lines("order", graph)) == {
        "sweeps/ui.py:1: sweeps.ui imports sweeps.planted"
    }


def test_a_room_stands_above_all_that_it_imports(graph):
    storeys = floors(graph, "sweeps")
    floor_of = {own: number for number, floor in enumerate(storeys) for own in floor}
    assert len(storeys) > 5
    for number, floor in enumerate(storeys):
        for others in floor.values():
            assert max((floor_of[other] for other in others), default=-1) == number - 1


def test_the_command_prints_the_graph():
    done = subprocess.run(
        [sys.executable, "-S", "-m", "tests.imports"], cwd=ROOT, env={}, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-2:] == ["circles: 0", "arrows up: 0"]
    assert [line.partition(":")[0] for line in done.stdout.splitlines() if " floors" in line] == list(ORDER)


@pytest.mark.parametrize(
    ("low", "printed"),
    [
        ("import sweeps.cli", []),
        ("import sweeps.planning.high", ["sweeps/records/low.py:1: sweeps.records.low imports sweeps.planning.high"]),
        ("import sweeps.records.high", ["sweeps/records/high.py:1: sweeps.records.high imports sweeps.records.low"]),
    ],
)
def test_the_command_fails_on_an_arrow_up_and_on_a_circle(low, printed, tmp_path):
    files = {
        "sweeps/cli.py": "",
        "sweeps/records/low.py": low,
        "sweeps/records/high.py": "import sweeps.records.low",
        "sweeps/planning/high.py": "",
        "tests/imports.py": (ROOT / "tests" / "imports.py").read_text(),
    }
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    done = subprocess.run(
        [sys.executable, "-S", "-m", "tests.imports"], cwd=tmp_path, env={}, capture_output=True, text=True, check=False
    )
    assert done.returncode == bool(printed), done.stderr
    assert set(printed) <= {line.strip() for line in done.stdout.splitlines()}


def modules(package: str) -> list[str]:
    """Dotted names of a package's modules, without `__main__`, which runs when imported."""
    return sorted(name for name in Graph().modules if f"{name}.".startswith(f"{package}.") and "__main__" not in name)


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
    """Imports modules in a fresh process in an empty folder; returns what it loaded and connected to."""
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
    home = tmp_path / "home"  # libraries keep caches there
    seen = probe([ADAPTER, *modules("sweeps")], tmp_path, home=home)
    assert "ray" in seen["LOADED"]
    assert seen["CONNECTIONS"] == []
    assert seen["RAY"] == ["False"]
    assert [path for path in tmp_path.iterdir() if path != home] == []
