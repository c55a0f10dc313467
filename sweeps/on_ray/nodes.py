"""Whether Ray starts here, and whether the nodes of a cluster are fit to train together."""

import hashlib
import importlib.metadata
import platform
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray._private import worker
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sweeps.findings import PROJECT, Finding, ok, problem, safely
from sweeps.on_ray import execute

LONGEST_SKEW_S = 2.0
"""Clocks further apart than this confuse logs, MLflow's curves and the ages of checkpoints."""
_ANSWER_S = 60.0
_PACKAGES = ("search_spaces", "sweeps", "trainables")
_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Node:
    """What a node of a cluster says of itself."""

    name: str
    versions: dict[str, str]
    ahead_s: float
    """Its clock less ours, true to half the time that asking took."""


def ray_cluster(address: str | None, device: str, nodes: int | None = None, wait_s: float = 0.0) -> Iterator[Finding]:
    """Whether Ray starts here, or every node of a cluster answers, with our versions and our time.

    Args:
        nodes: how many there must be, the head included; None takes what is there.
        wait_s: how long to wait for them.
    """
    began = time.monotonic()
    with execute.connected(address=address, device=device, workers=1, max_concurrent=None) as resources:
        place = "on this machine" if address is None else f"at {address}"
        slots = f"{resources.slots} cohorts at a time on {resources.device}"
        yield ok("ray", f"{place} after {time.monotonic() - began:.0f} s: {slots}")
        if nodes is not None:
            yield from _counted(nodes, wait_s)
        for node in ray.nodes():
            yield from safely("node", lambda node=node: _node(node))


def _counted(wanted: int, wait_s: float) -> Iterator[Finding]:
    deadline = time.monotonic() + wait_s
    while (alive := sum(node["Alive"] for node in ray.nodes())) < wanted and time.monotonic() < deadline:
        time.sleep(1)
    if alive >= wanted:
        yield ok("nodes", f"{alive} of {wanted} are there")
        return
    yield problem("nodes", f"{alive} of {wanted} are there after {wait_s:.0f} s", "see them come and go: ray status")
    this_node: Any = worker._global_node
    log = Path(this_node.get_logs_dir_path()) / "monitor.out"  # there on the head alone
    if not log.exists():
        yield Finding("setup", "note", "why nodes do not come is known on the head", "run this there with ray exec")
        return
    for name, said in failed_setups(log.read_text(errors="replace")).items():
        yield problem("setup", f"{name} said: {said}", "mend what it says, in the cluster file perhaps, and: ray up")


def failed_setups(log: str) -> dict[str, str]:
    """What nodes said last when their setup failed, by node, from what Ray's autoscaler prints.

    It prints what it does itself as lines with a time and a level, and in between what the nodes' commands print.
    """
    found: dict[str, str] = {}
    said: list[str] = []
    name = ""
    for line in re.sub(r"\x1b\[\d*m", "", log).splitlines():
        if not re.match(r"\d{4}-\d\d-\d\d \S+\t", line):
            said.append(line.strip())
        elif match := re.search(r"NodeUpdater: (\S+): ", line):
            name = match[1]
        elif line.endswith("New status: update-failed"):
            found[name] = " | ".join(said[-5:]) or "nothing"
        elif "updater.py" in line:  # the next command
            said.clear()
    return found


def _node(node: dict[str, Any]) -> Iterator[Finding]:
    name = node["NodeManagerAddress"]
    if node["Alive"]:
        yield from compared(_ask(name, node["NodeID"]), versions())
    else:
        yield Finding("node", "note", f"{name} is no longer alive")


def versions() -> dict[str, str]:
    """Of what must be equal on all nodes: results depend on it, or what Ray pickles does."""
    names = (PROJECT, "ray", "torch", "numpy", "pyarrow")
    installed = {name: importlib.metadata.version(name) for name in names}
    return {"python": platform.python_version(), "code": _code()} | installed


def _code() -> str:
    """A digest of this project's modules: checkouts of one version may differ."""
    digest = hashlib.sha256()
    for path in sorted(path for package in _PACKAGES for path in (_ROOT / package).rglob("*.py")):
        digest.update(path.relative_to(_ROOT).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def _ask(name: str, node_id: str) -> Node:
    strategy: Any = NodeAffinitySchedulingStrategy(node_id, soft=False)
    answer = ray.remote(lambda: (versions(), time.time())).options(num_cpus=0, scheduling_strategy=strategy)
    ray.get(answer.remote(), timeout=_ANSWER_S)  # starts a worker, so that the next one is quick
    sent = time.time()
    found, theirs = ray.get(answer.remote(), timeout=_ANSWER_S)
    return Node(name, found, theirs - (sent + time.time()) / 2)


def compared(node: Node, ours: dict[str, str]) -> Iterator[Finding]:
    """A node against this machine."""
    other = [f"{name} {node.versions.get(name)} (here {v})" for name, v in ours.items() if node.versions.get(name) != v]
    late = abs(node.ahead_s) > LONGEST_SKEW_S
    if other:
        yield problem(
            "node", f"{node.name} has {', '.join(other)}", "install one checkout and one constraints.txt on all nodes"
        )
    if late:
        yield problem("node", f"the clock of {node.name} is {node.ahead_s:+.1f} s off", "set the clocks by NTP")
    if not other and not late:
        yield ok("node", f"{node.name} has our versions and our time")
