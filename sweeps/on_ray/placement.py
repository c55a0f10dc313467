"""The nodes of the connected cluster, and calls on each of them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

T = TypeVar("T")


@dataclass(frozen=True)
class ClusterNode:
    """A node of the cluster, as reported by Ray."""

    id: str
    address: str
    alive: bool
    cpus: float
    gpus: float


def nodes() -> list[ClusterNode]:
    """All nodes that the cluster has or had, including dead ones."""
    return [
        ClusterNode(
            id=node["NodeID"],
            address=node["NodeManagerAddress"],
            alive=node["Alive"],
            cpus=node["Resources"].get("CPU", 0),
            gpus=node["Resources"].get("GPU", 0),
        )
        for node in ray.nodes()
    ]


def ask_each(
    asked: Iterable[ClusterNode], function: Callable[..., T], *arguments: Any, timeout_s: float
) -> dict[str, T]:
    """Calls a function on all given nodes at the same time, without reserving CPUs.

    Returns:
        The results by address, in the order of the addresses.

    Raises:
        ray.exceptions.GetTimeoutError: a node did not answer in time.
        Exception: any exception that the function raises on a node.
    """
    remote = ray.remote(function)
    answers = {}
    for node in sorted(asked, key=lambda node: node.address):
        strategy: Any = NodeAffinitySchedulingStrategy(node.id, soft=False)
        answers[node.address] = remote.options(num_cpus=0, scheduling_strategy=strategy).remote(*arguments)
    return {address: ray.get(answer, timeout=timeout_s) for address, answer in answers.items()}
