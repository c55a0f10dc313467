"""The parts of Ray that are private and for which it offers nothing public.

A new version of Ray may move any of them: `tests/sweeps/test_private.py` then says which one, and what it is for.
"""

from dataclasses import dataclass
from pathlib import Path

from ray._private import services, worker
from ray._raylet import GcsClient  # pyright: ignore[reportAttributeAccessIssue]  # of a compiled module
from ray.tune.execution.class_cache import ENV_VARS_TO_PROPAGATE


@dataclass(frozen=True)
class ThisNode:
    """The node that this process is connected to."""

    is_head: bool
    """Whether this process started it, together with the cluster."""
    address: str
    head: str
    """The address of the cluster's head, without its port."""
    logs: Path


def this_node() -> ThisNode:
    """The node that this process is connected to."""
    node = worker._global_node
    assert node is not None, "only after ray.init"
    return ThisNode(
        is_head=node.is_head(),
        address=node.node_ip_address,
        head=str(node.gcs_address).rpartition(":")[0],
        logs=Path(node.get_logs_dir_path()),
    )


def head_of(address: str) -> str:
    """Host and port of the head that an address stands for; raises ConnectionError where "auto" finds none."""
    return services.canonicalize_bootstrap_address_or_die(address)


def admitted(head: str) -> None:
    """Raises ray.exceptions.AuthenticationError if the head at host:port does not accept our token."""
    GcsClient(address=head)


def keep_from_trials(names: tuple[str, ...]) -> None:
    """Keeps environment variables of the driver out of what Tune hands to each trial, and Ray writes into its logs."""
    ENV_VARS_TO_PROPAGATE.difference_update(names)
