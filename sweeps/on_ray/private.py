"""The private parts of Ray that this project uses, because Ray has no public ones for the purpose.

A new version of Ray may move any of them; `tests/sweeps/test_private.py` then tells which one, and what it is for.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray._private import services, worker
from ray._raylet import GcsClient  # pyright: ignore[reportAttributeAccessIssue]  # in a compiled module
from ray.air.execution._internal import actor_manager
from ray.exceptions import OutOfMemoryError, RayActorError
from ray.tune.execution.class_cache import ENV_VARS_TO_PROPAGATE


@dataclass(frozen=True)
class ThisNode:
    """The node that this process is connected to."""

    is_head: bool
    """Whether this process started the node, and the cluster with it."""
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
    """Host and port of the head of the cluster at an address; raises ConnectionError if "auto" finds none."""
    return services.canonicalize_bootstrap_address_or_die(address)


def admitted(head: str) -> None:
    """Raises ray.exceptions.AuthenticationError if the head at host:port does not accept our token."""
    GcsClient(address=head)


def silence() -> None:
    """Keeps Ray from printing messages of its processes to standard output, which may carry JSON."""
    worker.print_to_stdstream = lambda *_, **__: None


def keep_from_trials(names: tuple[str, ...]) -> None:
    """Stops Tune from passing environment variables of the driver to trials, since Ray writes them into its logs."""
    ENV_VARS_TO_PROPAGATE.difference_update(names)


class KilledForMemoryError(RayActorError):
    """Ray has killed the process of an actor because the memory of its node was nearly full."""


def survive_memory_kills() -> None:
    """Lets Tune see that Ray killed a trial's process for memory as the loss of that trial.

    Ray raises `OutOfMemoryError` then, which Tune does not expect: without this it ends the whole run.
    """
    for name in ("_actor_start_failed", "_actor_task_failed"):
        failed = getattr(actor_manager.RayActorManager, name)
        if not hasattr(failed, "__wrapped__"):
            setattr(actor_manager.RayActorManager, name, _with_losses(failed))


def _with_losses(failed: Callable[..., None]) -> Callable[..., None]:
    """Wraps a method of Ray that receives an actor's error: a kill for memory becomes the death of the actor."""

    @functools.wraps(failed)
    def told(manager: Any, *, exception: Exception, **place: Any) -> None:
        killed = isinstance(exception, OutOfMemoryError)
        failed(manager, exception=KilledForMemoryError(error_msg=str(exception)) if killed else exception, **place)

    return told
