"""Checks that Ray starts here, and that the nodes of a cluster can train together."""

import hashlib
import importlib.metadata
import platform
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sweeps.findings import PROJECT, Finding, ok, problem, safely
from sweeps.on_ray import private
from sweeps.on_ray.cluster import connected
from sweeps.on_ray.placement import ClusterNode, ask_each, nodes

LONGEST_SKEW_S = 2.0
"""The largest accepted difference of clocks; more confuses logs, MLflow's curves and the ages of checkpoints."""
_ANSWER_S = 60.0
_PACKAGES = ("search_spaces", "sweeps", "trainables")
_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Node:
    """The answer of a node about itself."""

    name: str
    versions: dict[str, str]
    ahead_s: float
    """Its clock minus ours, in seconds; the error is at most half the time between question and answer."""


def ray_cluster(address: str | None, device: str, wanted: int | None = None, wait_s: float = 0.0) -> Iterator[Finding]:
    """Checks that Ray starts here, or that every node of a cluster answers with our versions and our time.

    Args:
        address: address of the cluster; None starts Ray on this machine.
        device: auto, cpu or cuda.
        wanted: how many nodes there must be, including the head; None accepts any number.
        wait_s: how long to wait for them, in seconds.

    Raises:
        UserError: as `connected`.
    """
    began = time.monotonic()
    with connected(address=address, device=device, workers=1, max_concurrent=None) as resources:
        place = "started on this machine" if address is None else f"joined at {address}"
        slots = f"{resources.slots} cohorts at a time on {resources.device}"
        yield ok("ray", f"{place} in {time.monotonic() - began:.0f} s; trains {slots}")
        if wanted is not None:
            yield from _counted(wanted, wait_s)
        for node in nodes():
            yield from safely("node", lambda node=node: _node(node))


def _counted(wanted: int, wait_s: float) -> Iterator[Finding]:
    deadline = time.monotonic() + wait_s
    while (alive := sum(node.alive for node in nodes())) < wanted and time.monotonic() < deadline:
        time.sleep(1)
    if alive >= wanted:
        yield ok("nodes", f"{alive} of {wanted} are up")
        return
    yield problem("nodes", f"{alive} of {wanted} are up after {wait_s:.0f} s", "to watch them: ray status")
    log = private.this_node().logs / "monitor.out"  # exists only on the head
    if not log.exists():
        yield Finding("setup", "note", "only the head knows why nodes are missing", "run this command there: ray exec")
        return
    for name, said in failed_setups(log.read_text(errors="replace")).items():
        yield problem("setup", f"{name} failed: {said}", "correct this, perhaps in the cluster file; then run ray up")


def failed_setups(log: str) -> dict[str, str]:
    """The last output of each node whose setup failed, from the log of Ray's autoscaler.

    Lines of the autoscaler itself begin with a time and a level. All other lines are output of the nodes' commands.
    """
    failed: dict[str, str] = {}
    said: list[str] = []
    name = ""
    for line in re.sub(r"\x1b\[\d*m", "", log).splitlines():
        if not re.match(r"\d{4}-\d\d-\d\d \S+\t", line):
            said.append(line.strip())
        elif match := re.search(r"NodeUpdater: (\S+): ", line):
            name = match[1]
        elif line.endswith("New status: update-failed"):
            failed[name] = " | ".join(said[-5:]) or "nothing"
        elif "updater.py" in line:  # the next command
            said.clear()
    return failed


def _node(node: ClusterNode) -> Iterator[Finding]:
    if node.alive:
        yield from compared(_ask(node), versions())
    else:
        yield Finding("node", "note", f"{node.address} is no longer alive")


def versions() -> dict[str, str]:
    """The versions that must be equal on all nodes, because results or Ray's pickles depend on them."""
    names = (PROJECT, "ray", "torch", "numpy", "pyarrow")
    installed = {name: importlib.metadata.version(name) for name in names}
    return {"python": platform.python_version(), "code": _code()} | installed


def _code() -> str:
    """A digest of this project's modules, since two checkouts of the same version may differ."""
    digest = hashlib.sha256()
    for path in sorted(path for package in _PACKAGES for path in (_ROOT / package).rglob("*.py")):
        digest.update(path.relative_to(_ROOT).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def _answer() -> tuple[dict[str, str], float]:
    return versions(), time.time()


def _ask(node: ClusterNode) -> Node:
    ask_each([node], _answer, timeout_s=_ANSWER_S)  # starts a worker, so that the next answer is quick
    sent = time.time()
    ((theirs, their_time),) = ask_each([node], _answer, timeout_s=_ANSWER_S).values()
    return Node(node.address, theirs, their_time - (sent + time.time()) / 2)


def compared(node: Node, ours: dict[str, str]) -> Iterator[Finding]:
    """Compares a node with this machine."""
    other = [f"{name} {node.versions.get(name)} (here {v})" for name, v in ours.items() if node.versions.get(name) != v]
    late = abs(node.ahead_s) > LONGEST_SKEW_S
    if other:
        yield problem(
            "node", f"{node.name} has {', '.join(other)}", "install one checkout and one constraints.txt on all nodes"
        )
    if late:
        yield problem(
            "node", f"the clock of {node.name} is {node.ahead_s:+.1f} s off", "synchronize the clocks with NTP"
        )
    if not other and not late:
        yield ok("node", f"{node.name} has the same versions and the same time")
