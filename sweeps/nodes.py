"""Whether Ray starts here, and whether the nodes of a cluster are fit to train together."""

import importlib.metadata
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sweeps import execute
from sweeps.findings import PROJECT, Finding, ok, problem, safely

LONGEST_SKEW_S = 2.0
"""Clocks further apart than this confuse logs, MLflow's curves and the ages of checkpoints."""
_ANSWER_S = 60.0


@dataclass(frozen=True)
class Node:
    """What a node of a cluster says of itself."""

    name: str
    versions: dict[str, str]
    ahead_s: float
    """Its clock less ours, true to half the time that asking took."""


def ray_cluster(address: str | None, device: str) -> Iterator[Finding]:
    """Whether Ray starts here, or every node of a cluster answers, with our versions and our time."""
    began = time.monotonic()
    with execute.connected(address=address, device=device, workers=1, max_concurrent=None) as resources:
        place = "on this machine" if address is None else f"at {address}"
        slots = f"{resources.slots} cohorts at a time on {resources.device}"
        yield ok("ray", f"{place} after {time.monotonic() - began:.0f} s: {slots}")
        for node in ray.nodes():
            yield from safely("node", lambda node=node: _node(node))


def _node(node: dict[str, Any]) -> Iterator[Finding]:
    name = node["NodeManagerAddress"]
    if node["Alive"]:
        yield from compared(_ask(name, node["NodeID"]), versions())
    else:
        yield Finding("node", "note", f"{name} is no longer alive")


def versions() -> dict[str, str]:
    """Of what must be equal on all nodes: results depend on it, or what Ray pickles does."""
    names = (PROJECT, "ray", "torch", "numpy", "pyarrow")
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in names}


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
        yield problem("node", f"{node.name} has {', '.join(other)}", "install one constraints.txt on all nodes")
    if late:
        yield problem("node", f"the clock of {node.name} is {node.ahead_s:+.1f} s off", "set the clocks by NTP")
    if not other and not late:
        yield ok("node", f"{node.name} has our versions and our time")
