"""The imports of the three packages, and the rules for them.

`python -m tests.imports` prints the graph as text: floors with their rooms, circles, and arrows that run back up. It
exits with 1 if there are circles or arrows up. A room is a file or folder that `ORDER` names; its floor is one above
the highest room that it imports.

The files are parsed, not imported, so the command works in a plain checkout. Every import counts, also inside functions
and for type checkers only.
"""

import ast
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.util import resolve_name
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

ORDER: Mapping[str, tuple[str, ...]] = {
    "trainables": (
        "registry renamed reports filesystem ieee halving shards streams",
        "checkpoint metrics",
        "components pixels measurements",
        "latents",
        "analytic codes",
        "likelihoods models data estimators optimizers",
        "config",
        "objective",
        "packing",
        "cost diagnostics",
        "training",
        "worker trained diagnose estimators.__main__",
        "ray_train __init__",
    ),
    "search_spaces": (
        "figures scale published",
        "space",
        "catalogue",
        "__init__ derived decoupled_st_gs",
        "discrete_vae silent_gradients",
    ),
    "sweeps": (
        "errors redact",
        "findings",
        "cli",
        "records",
        "planning",
        "analysis",
        "on_ray",
        "report",
        "bundle",
        "tracking",
        "driver",
        "run status export load ui doctor rates report.__main__",
        "__main__ __init__",
    ),
}
"""The rooms of each package, from the bottom: a room may import rooms of earlier lines, and its own modules. Files that
are not named are above all rooms, so a new study needs no entry."""

KNOWS: Mapping[str, Collection[str]] = {
    "trainables": (),
    "search_spaces": (),
    "sweeps": ("trainables", "search_spaces"),
}
"""The packages that each package may import."""

ONLY_IN: Mapping[str, Collection[str]] = {
    "ray": ("sweeps/on_ray/", "trainables/ray_train.py"),
    "mlflow": ("sweeps/tracking/",),
    "sqlite3": ("sweeps/tracking/sqlite.py",),
    "optuna": ("sweeps/planning/search.py", "sweeps/report/search_plots.py", "sweeps/report/optuna_studies.py"),
    "optuna_dashboard": ("sweeps/report/optuna_studies.py",),
    "torch": ("trainables/", "sweeps/"),
    "tests": (),
}
"""Libraries, and the only files and folders that may import them."""

PRIVATE: Mapping[str, Collection[str]] = {
    "ray._private": ("sweeps/on_ray/private.py",),
    "ray.experimental.internal_kv": ("trainables/ray_train.py",),
    "ray._raylet": ("sweeps/on_ray/private.py",),
    "ray.air.execution._internal": ("sweeps/on_ray/private.py",),
    "torch.utils._pytree": ("trainables/packing/", "trainables/cost/"),
    "torch.utils._python_dispatch": ("trainables/cost/memory.py",),
    "torch._dynamo": ("trainables/packing/compiled.py",),
    "mlflow.store": ("sweeps/tracking/sqlite.py",),
}
"""Private modules of libraries, and the only files and folders that may use them. Names with a leading underscore are
private everywhere else; names without one are private because the table has them."""

COMPUTED = "a computed name"
"""The target of an import by a call that does not name the module by a constant."""
COMPUTE_NAMES: Collection[str] = ("trainables/registry.py", "search_spaces/catalogue.py")
"""The only files that may compute the names of modules: they import every file of a folder."""

SLOW: Mapping[str, str] = {
    "ray": "0.5 s",
    "ray.tune": "1.4 s",
    "ray.train": "1.4 s",
    "mlflow": "1.5 s",
    "optuna": "0.2 s",
    "optuna_dashboard": "1.5 s, and not installed everywhere",
    "torch": "1.8 s",
    "torch._dynamo": "1.5 s more than torch",
    "torchvision": "1.5 s more than torch",
    "sklearn": "1.3 s",
    "scipy": "0.3 s",
    "matplotlib": "0.3 s",
    "matplotlib.pyplot": "0.2 s more than matplotlib",
    "pandas": "0.4 s",
    "pyarrow": "0.1 s",
    "obstore": "0.1 s",
}
"""Libraries that take long to import, with their processor time. A function may contain an import only if it loads one
of these, directly or through our modules, and the importing module does not load it already."""


@dataclass(frozen=True)
class Import:
    """One name that a module imports."""

    path: Path
    """The importing file, relative to the checkout."""
    line: int
    importer: str
    name: str
    """The dotted name of the imported object."""
    target: str
    """The module of ours that contains it; the name itself for a library."""
    late: bool
    """Whether the import is inside a function."""
    for_types: bool
    """Whether the import is below `if TYPE_CHECKING`."""

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.importer} imports {self.target}"


class Graph:
    """The imports of the packages below a root.

    Args:
        root: the folder that contains the packages.
        planted: source texts by path relative to the root; they replace or supplement the files.
    """

    def __init__(self, root: Path = ROOT, planted: Mapping[str, str] | None = None):
        sources = {
            path.relative_to(root): path.read_text()
            for package in ORDER
            for path in sorted((root / package).rglob("*.py"))
        }
        sources |= {Path(path): text for path, text in (planted or {}).items()}
        self.modules = {_module(path): path for path in sources}
        every = [each for path, text in sources.items() for each in self._of(path, text)]
        self.imports = [each for each in every if each.target != COMPUTED]
        self._computed = [each for each in every if each.target == COMPUTED]

    def _of(self, path: Path, text: str) -> Iterator[Import]:
        importer = _module(path)
        imported, private = _found(path, text)
        for line, name, late, for_types in imported:
            target = self._ours(name) or name
            if target != importer:
                yield Import(path, line, importer, name, target, late, for_types)
        for line, name in private:
            if self._ours(name) is None:
                yield Import(path, line, importer, name, name, False, False)

    def _ours(self, name: str) -> str | None:
        """The module of ours that contains a dotted name; None for a library."""
        while name and name not in self.modules:
            name = name.rpartition(".")[0]
        return name or None

    @cached_property
    def inner(self) -> list[Import]:
        """The imports of our own modules."""
        return [each for each in self.imports if each.target in self.modules]

    def circles(self) -> list[list[Import]]:
        """The imports that close each circle: modules that import each other, directly or not."""
        return _circles(self.inner, lambda module: module)

    def circles_of_rooms(self) -> list[list[Import]]:
        """The arrows up in each circle of rooms; without them there is no circle."""
        return [
            [each for each in circle if _is_up(each.importer, each.target)] for circle in _circles(self.inner, room)
        ]

    def arrows_up(self) -> list[Import]:
        """Imports that break `ORDER` or `KNOWS`."""
        return [each for each in self.inner if _is_up(each.importer, each.target)]

    def strangers(self) -> list[Import]:
        """Imports of libraries outside the files that may import them."""
        return [each for each in self._foreign() if not _allowed(each, ONLY_IN)]

    def private(self) -> list[Import]:
        """Uses of libraries' private modules outside the files that may use them."""
        return [each for each in self._foreign() if not _allowed(each, PRIVATE, not _is_private(each.target))]

    def computed_names(self) -> list[Import]:
        """Calls that import a module by a computed name, which no other rule sees, outside the files that may do so."""
        return [each for each in self._computed if each.path.as_posix() not in COMPUTE_NAMES]

    def needless_late(self) -> list[Import]:
        """Imports inside functions that save no start-up time."""
        needless = []
        for each in self.imports:
            if each.late and not self._loads(each.target) - self._loads(each.importer):
                needless.append(each)
        return needless

    def _foreign(self) -> list[Import]:
        return [each for each in self.imports if each.target not in self.modules]

    def _loads(self, name: str) -> Set[str]:
        """The slow libraries that importing a module loads."""
        seen: set[str] = set()
        ahead = [name]
        while ahead:
            module = ahead.pop()
            if module not in seen:
                seen.add(module)
                ahead += self._at_once.get(module, ())
                if module in self.modules and "." in module:
                    ahead.append(module.rpartition(".")[0])
        return {slow for slow in SLOW for module in seen if _lies_in(module, slow)}

    @cached_property
    def _at_once(self) -> Mapping[str, list[str]]:
        """The imports that run when each module is imported."""
        at_once: dict[str, list[str]] = {}
        for each in self.imports:
            if not each.late and not each.for_types:
                at_once.setdefault(each.importer, []).append(each.target)
                if each.target == "trainables.registry" and each.name.endswith(".import_submodules"):
                    plug_ins = (module for module in self.modules if module.rpartition(".")[0] == each.importer)
                    at_once[each.importer] += plug_ins
        return at_once


@cache
def _found(path: Path, text: str) -> tuple[Sequence[tuple[int, str, bool, bool]], Sequence[tuple[int, str]]]:
    """The imports of a file, as (line, name, late, for types), and its uses of private names, as (line, name)."""
    importer, tree = _module(path), ast.parse(text)
    package = importer if path.name == "__init__.py" else importer.rpartition(".")[0]
    statements = list(_statements(tree))
    local = {
        known_as: name
        for node, _, _ in statements
        if not isinstance(node, ast.Call)
        for name, known_as in _names(node, package)
    }
    imported: list[tuple[int, str, bool, bool]] = []
    for node, late, for_types in statements:
        names = _called(node, package, local) if isinstance(node, ast.Call) else _names(node, package)
        for name, known_as in names:
            local[known_as] = name
            imported.append((node.lineno, name, late, for_types))
    return imported, list(_private_uses(tree, local))


def room(module: str) -> str:
    """The room of a module: the longest name in `ORDER` that contains it, else the module itself."""
    package, _, rest = module.partition(".")
    rest = rest or "__init__"
    own = rest
    while own and own not in _LINES[package]:
        own = own.rpartition(".")[0]
    return f"{package}.{own or rest}"


_LINES = {
    package: {name: number for number, line in enumerate(lines) for name in line.split()}
    for package, lines in ORDER.items()
}


def _is_up(importer: str, target: str) -> bool:
    own, _, own_room = room(importer).partition(".")
    other, _, other_room = room(target).partition(".")
    if own != other:
        return other not in KNOWS[own]
    lines = _LINES[own]
    return own_room != other_room and lines.get(own_room, len(lines)) <= lines.get(other_room, len(lines))


def _lies_in(name: str, parent: str) -> bool:
    return f"{name}.".startswith(f"{parent}.")


def _allowed(each: Import, table: Mapping[str, Collection[str]], unknown: bool = True) -> bool:
    """Whether the table lets this file import this name; `unknown` if the table does not know the name."""
    places = [places for name, places in table.items() if _lies_in(each.target, name)]
    if not places:
        return unknown
    return any(each.path.as_posix().startswith(place) for group in places for place in group)


def _is_private(name: str) -> bool:
    return any(part.startswith("_") and not part.startswith("__") for part in name.split("."))


def _module(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


Statement = ast.Import | ast.ImportFrom | ast.Call
"""A statement that may import."""


def _statements(tree: ast.AST, late: bool = False, for_types: bool = False) -> Iterator[tuple[Statement, bool, bool]]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, Statement):
            yield node, late, for_types
        types_only = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        yield from _statements(node, late or inside, for_types or types_only)


def _names(node: ast.Import | ast.ImportFrom, package: str) -> Iterator[tuple[str, str]]:
    """The dotted names that a statement in a package imports, each with its local name."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield alias.name, alias.asname or alias.name
    else:
        base = "." * node.level + (node.module or "")
        for alias in node.names:
            yield f"{resolve_name(base, package)}.{alias.name}", alias.asname or alias.name


def _called(node: ast.Call, package: str, local: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """The same for a call of `importlib.import_module` or `__import__`, also under another name."""
    match node.func:
        case ast.Name(id=name):
            function = local.get(name, name).rpartition(".")[2]
        case ast.Attribute(attr=function):
            pass
        case _:
            return
    if function in ("import_module", "__import__"):
        given = dict(zip(("name", "package"), node.args, strict=False)) | {
            each.arg: each.value for each in node.keywords
        }
        name = _constant(given.get("name"), package)
        within = _constant(given.get("package"), package) if name.startswith(".") else package
        full = COMPUTED if COMPUTED in (name, within) else resolve_name(name, within)
        yield full, full


def _constant(node: ast.AST | None, package: str) -> str:
    """The text of a constant or of `__package__`; `COMPUTED` for anything else."""
    if isinstance(node, ast.Name) and node.id == "__package__":
        return package
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else COMPUTED


def _private_uses(tree: ast.AST, local: Mapping[str, str]) -> Iterator[tuple[int, str]]:
    """Private names used through an imported name, like `ray._private.worker`: lines and dotted names."""
    for node in ast.walk(tree):
        match node:
            case (
                ast.Attribute(value=value, attr=attribute)
                | ast.Call(func=ast.Name(id="getattr"), args=[value, ast.Constant(value=str(attribute)), *_])
            ) if _is_private(attribute):
                start, _, rest = f"{ast.unparse(value)}.{attribute}".partition(".")
                name = f"{local.get(start, start)}.{rest}"
                known = start in local or any(each.startswith(f"{start}.") for each in local)
                if known and name.partition(".")[0] not in sys.stdlib_module_names:
                    yield node.lineno, name


def _circles(imports: Iterable[Import], name: Callable[[str], str]) -> list[list[Import]]:
    edges = [(name(each.importer), name(each.target), each) for each in imports]
    edges = [edge for edge in edges if edge[0] != edge[1]]
    below: dict[str, set[str]] = {}
    for importer, target, _ in edges:
        below.setdefault(importer, set()).add(target)
    reached = {start: _reached(start, below) for start in below}
    circles: dict[frozenset[str], list[Import]] = {}
    for importer, target, each in edges:
        if importer in reached.get(target, ()):
            group = frozenset(other for other in reached[importer] if importer in reached.get(other, ()))
            circles.setdefault(group, []).append(each)
    return list(circles.values())


def _reached(start: str, below: Mapping[str, Set[str]]) -> set[str]:
    seen: set[str] = set()
    ahead = set(below[start])
    while ahead:
        seen |= ahead
        ahead = {further for module in ahead for further in below.get(module, ())} - seen
    return seen


def floors(graph: Graph, package: str) -> list[dict[str, list[str]]]:
    """The rooms of a package by floor, from the bottom, each with the rooms of the package that it imports."""
    below: dict[str, set[str]] = {room(module): set() for module in graph.modules if _lies_in(module, package)}
    for each in graph.inner:
        if _lies_in(each.importer, package) and _lies_in(each.target, package):
            below[room(each.importer)].add(room(each.target))
    below = {own: others - {own} for own, others in below.items()}
    result: list[dict[str, list[str]]] = []
    done: set[str] = set()
    while len(done) < len(below):
        floor = {own: sorted(others) for own, others in sorted(below.items()) if own not in done and others <= done}
        if not floor:
            raise ValueError(f"the rooms of {package} have a circle")
        result.append(floor)
        done |= set(floor)
    return result


def text(graph: Graph) -> str:
    """The graph as text: floors from the top, then circles and arrows up."""
    lines = []
    circles = graph.circles() + graph.circles_of_rooms()
    up = graph.arrows_up()
    for package in ORDER:
        if any(_lies_in(each.importer, package) for circle in graph.circles_of_rooms() for each in circle):
            lines.append(f"{package}: no floors, its rooms have a circle")
            continue
        storeys = floors(graph, package)
        lines.append(f"{package}: {sum(map(len, storeys))} rooms on {len(storeys)} floors")
        for number, floor in reversed(list(enumerate(storeys))):
            for own, others in floor.items():
                short = ", ".join(other.removeprefix(f"{package}.") for other in others)
                lines.append(f"  {number:2}  {own.removeprefix(f'{package}.'):20} {short}".rstrip())
        lines.append("")
    lines.append(f"circles: {len(circles)}")
    lines += [f"  {each}" for circle in circles for each in circle]
    lines.append(f"arrows up: {len(up)}")
    lines += [f"  {each}" for each in up]
    return "\n".join(lines)


if __name__ == "__main__":
    checkout = Graph()
    print(text(checkout))
    sys.exit(bool(checkout.circles() or checkout.arrows_up()))  # a circle of rooms has an arrow up
