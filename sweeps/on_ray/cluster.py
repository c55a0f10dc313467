"""Starts Ray on this machine or joins a cluster for the time of a run, and tells the resources that it offers."""

import contextlib
import logging
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import ray

from sweeps.errors import UserError
from sweeps.on_ray import private
from sweeps.on_ray.address import answering
from sweeps.on_ray.authentication import own_token
from sweeps.on_ray.autoscaling import largest
from sweeps.on_ray.placement import nodes
from sweeps.on_ray.watch import Head, OwnRay, RayLostError, Watch, end_without_ray

_OBJECT_STORE_BYTES = 256 * 2**20  # results are small; the default takes a third of the machine's memory
_CREDENTIALS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SECURITY_TOKEN", "AWS_SESSION_TOKEN")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Resources:
    """The resources of a cluster at one moment, and the share of one cohort."""

    device: str
    """cpu or cuda."""
    slots: int
    """How many cohorts run at the same time."""
    workers: int = 1
    """How many Ray Train workers a cohort has."""
    max_concurrent: int | None = None
    """The largest number of slots; None sets no limit."""
    per_gpu: int = 1
    """How many cohorts, or workers of a cohort, share a GPU."""
    alive_nodes: int = 1
    most_cpus: int = 1
    """The CPUs of the largest node."""
    own: bool = True
    """Whether this process has started the Ray; no node can join it."""
    watch: Watch | None = field(default=None, compare=False, repr=False)
    """Notices that Ray cannot go on."""

    def threads(self, cohorts: int) -> int:
        """The number of threads of each cohort if `cohorts` run at the same time; they share the CPUs.

        One on several nodes, since Ray decides which cohorts share a node; one also on GPUs and with several workers.
        """
        if self.device == "cuda" or self.workers > 1 or self.alive_nodes > 1:
            return 1
        return max(1, self.slots // cohorts)

    @property
    def memory_share(self) -> float:
        """The fraction of a device's memory that one cohort may take."""
        return 1 / self.per_gpu if self.device == "cuda" else 1 / max(1, min(self.slots, self.most_cpus))

    @property
    def trial(self) -> dict[str, float]:
        """The resources of one trial, in the form of Ray Tune."""
        if self.workers > 1:
            # The workers hold the CPUs and GPUs; a trial that held one itself could block its own workers for ever.
            # Tune needs some resource, so the trial asks for 1 MiB of memory.
            return {"memory": 2**20}
        return {"CPU": 1, "GPU": 1 / self.per_gpu} if self.device == "cuda" else {"CPU": 1}


@contextlib.contextmanager
def connected(
    *,
    address: str | None,
    device: str,
    workers: int,
    max_concurrent: int | None,
    per_gpu: int = 1,
    token_folder: Path | None = None,
    advice: str = "",
) -> Iterator[Resources]:
    """A context that starts Ray on this machine, or joins a cluster, and gives its resources.

    Args:
        address: address of the cluster to join; None starts Ray on this machine.
        device: auto, cpu or cuda.
        workers: number of Ray Train workers of a cohort.
        max_concurrent: the largest number of cohorts at the same time; None sets no limit.
        per_gpu: number of cohorts, or of workers of a cohort, that share a GPU.
        token_folder: folder for the token of a Ray that is started here; None for a temporary folder.
        advice: what the user can do if Ray is lost, for the one message that this process cannot raise.

    Raises:
        UserError: the address does not answer, its versions differ, or the resources do not allow what is asked for.
        RayLostError: Ray did not start.
    """
    own, interrupted = OwnRay(), False
    with own_token(token_folder) if address is None else contextlib.nullcontext():
        head = None if address is None else answering(address)
        watch = Watch(own.ended if head is None else Head(head).away, own.kill, advice)
        try:
            with watch:
                try:
                    _start(head, watch)
                except KeyboardInterrupt:
                    interrupted = True
                    raise
                yield replace(available(device, workers, max_concurrent, per_gpu), own=head is None, watch=watch)
        finally:
            hurry = head is None and watch.interrupted  # a Ray of our own holds nothing that is still needed
            # Ray's own end waits for ever if Ray is lost, and crashes a process that is only half connected.
            if watch.lost or interrupted or hurry:
                own.kill()
                end_without_ray()
            else:
                ray.shutdown()


def _start(head: str | None, watch: Watch) -> None:
    quiet: Any = {"log_to_driver": False, "logging_level": logging.ERROR}
    terminate = signal.getsignal(signal.SIGTERM)
    private.silence()
    try:
        if head is None:
            # Processes on this machine inherit our environment. Tune would pass AWS credentials again in a runtime
            # environment, and Ray writes this into logs that everybody can read.
            private.keep_from_trials(_CREDENTIALS)
            ray.init("local", include_dashboard=False, object_store_memory=_OBJECT_STORE_BYTES, **quiet)
        else:
            ray.init(head, **quiet)
    except SystemExit:
        raise KeyboardInterrupt from None  # Ray raises SystemExit on SIGTERM
    except Exception as error:  # Ray raises plain exceptions here
        log.debug("Ray did not start", exc_info=True)
        watch.check()
        what = " ".join(str(error).split())
        if head is None:
            raise RayLostError(f"Ray could not be started on this machine ({what})") from None
        if "ersion mismatch" in what:
            raise UserError(
                f"--address {head!r}: {what}; install the same versions everywhere (constraints.txt)"
            ) from None
        raise UserError(f"--address {head!r}: the cluster cannot be joined ({what})") from None
    finally:
        signal.signal(signal.SIGTERM, terminate)  # Ray replaces the handler


def available(device: str, workers: int, max_concurrent: int | None, per_gpu: int) -> Resources:
    """The resources of the connected cluster; arguments as for `connected`.

    Raises:
        UserError: the resources do not allow what is asked for.
    """
    gpus, cpus = _units("GPU"), _units("CPU")
    if device == "auto":
        device = "cuda" if gpus else "cpu"
    if device == "cuda" and not gpus:
        raise UserError("--device cuda: Ray sees no GPU; use --device cpu or join a cluster that has one")
    if device == "cpu" and per_gpu > 1:
        raise UserError(
            f"--per-gpu {per_gpu} needs GPUs, but this run trains on CPUs; leave it out, or give --device cuda"
        )
    places = gpus * per_gpu if device == "cuda" else cpus
    if workers > places:
        raise UserError(f"--workers {workers}: Ray has only {places} {device} units; ask for at most {places} workers")
    return _resources(device, places, workers, max_concurrent, per_gpu)


def renewed(resources: Resources) -> Resources:
    """The current resources, after nodes may have come or gone."""
    places = _units("GPU") * resources.per_gpu if resources.device == "cuda" else _units("CPU")
    now = _resources(resources.device, places, resources.workers, resources.max_concurrent, resources.per_gpu)
    return replace(now, own=resources.own, watch=resources.watch)


def _resources(device: str, places: int, workers: int, max_concurrent: int | None, per_gpu: int) -> Resources:
    slots = max(1, places // workers)
    known = nodes()
    return Resources(
        device,
        slots=min(slots, max_concurrent or slots),
        workers=workers,
        max_concurrent=max_concurrent,
        per_gpu=per_gpu,
        alive_nodes=sum(node.alive for node in known),
        most_cpus=max((int(node.cpus) or 1 for node in known), default=1),
    )


def _units(resource: str) -> int:
    """The units of a resource that the cluster has or may grow to, whichever is more."""
    return int(max(ray.cluster_resources().get(resource, 0), largest().get(resource, 0)))
