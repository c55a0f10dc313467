"""Trains a cohort in a worker: its task, the training loop and its reports. Needs no Ray.

`trainables.ray_train` runs it inside a Tune trial.
"""

import contextlib
import json
import platform
import time
import traceback
from collections.abc import Callable, Generator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from trainables.checkpoint import CheckpointFile, StorageError
from trainables.config import TrainingConfig
from trainables.cost.memory import Footprint, footprint, free_bytes
from trainables.data import DataError
from trainables.data.sizes import size_of
from trainables.filesystem import Permit
from trainables.halving import Halving
from trainables.reports import Fault, Outcome, Reason, Report, failures
from trainables.shards import ALONE, Shards
from trainables.training import CohortTraining, TrainingResult, resolve_device

REPORT_EVERY_S = STOP_EVERY_S = 1.0
WORTH_A_PROBE = 300
"""Steps, summed over all members, from which the memory is measured first. The probe takes about three steps and
evaluations. Shorter trainings start at once; cohorts that do not fit are halved."""
_footprints: dict[tuple[str, str], Footprint] = {}
"""Footprints by shape and device, since a process trains many cohorts of the same shape."""


@dataclass(frozen=True)
class Task:
    """The task of a trial: plain data, sent as JSON."""

    key: str
    """The key of the cohort."""
    configs: list[dict[str, Any]]
    device: str
    data_dir: str
    checkpoints: str
    """The folder for this cohort's checkpoints, as a URI or path."""
    checkpoint_every_s: float
    workers: int
    threads: int
    scratch: str
    """The folder for Ray Train's own files."""
    halving: dict[str, Any] | None = None
    """The rule for stopping members early (`Halving`), or None; each worker of a group applies it to its members."""
    per_gpu: int = 1
    """The number of trials or workers that share a GPU."""
    permit: dict[str, str] | None = None
    """The permission to write checkpoints (`Permit`); None allows every write."""
    memory_share: float | None = None
    """The share of the device's free memory for all members together; None skips the check of their memory."""

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Task":
        return cls(**json.loads(text))


class WorkerError(Exception):
    """A failure in a worker that ends its whole group, with the reason and its detail."""

    def __init__(self, reason: Reason | Fault, detail: str):
        super().__init__(reason, detail)
        self.reason: Reason | Fault = reason
        self.detail = detail


class TooManyError(Exception):
    """More members than fit into memory together."""

    def __init__(self, fit: int, members: int):
        super().__init__(f"{fit} of {members} members fit into memory")
        self.fit = fit


def train_cohort(
    task: Task,
    configs: list[TrainingConfig],
    report: Callable[[Report], None],
    *,
    name: str,
    every_s: float = REPORT_EVERY_S,
    stop: Callable[[], bool] = lambda: False,
    shards: Shards = ALONE,
) -> None:
    """Trains members to the end, from their checkpoint if there is one.

    Metrics are reported at most every `every_s` seconds. The last report has the outcomes and all metrics from the
    first epoch, so lost reports do no harm.

    If several processes train these members together, all of them report at the same times. The first process reads
    and writes the checkpoint.

    Args:
        task: of the trial.
        configs: the members, of one shape.
        report: receives the reports.
        name: of the checkpoint file.
        every_s: the shortest time between two reports.
        stop: called after each epoch, at most once a second; if true, the training saves its checkpoint, reports that
            it was interrupted and returns.
        shards: this process's place in a group that trains the same members.

    Raises:
        TooManyError: the members do not fit into memory; nothing was trained.
        StorageError: the checkpoint cannot be read or written.
        DataError: the images cannot be read.
    """
    if shards.from_first(stop):  # the run was interrupted while this process started
        report(Report(interrupted=True))
        return
    device, data_dir = resolve_device(task.device), Path(task.data_dir)
    if len(configs) > 1 and task.memory_share is not None:
        _check_memory(configs, device, data_dir, task.memory_share)
    halving = Halving(**task.halving) if task.halving else None
    training = CohortTraining(configs, device=device, data_dir=data_dir, halving=halving, shards=shards)
    file = CheckpointFile(task.checkpoints, name, Permit(**task.permit) if task.permit else None)
    if (saved := shards.from_first(file.read)) is not None:
        with contextlib.suppress(ValueError):  # a damaged or foreign checkpoint: train from the beginning
            training.restore(saved)
    reported = 0
    report_due, checkpoint_due, stop_due = _Timer(every_s), _Timer(task.checkpoint_every_s), _Timer(STOP_EVERY_S)
    for epoch in training:
        to_report, to_save, to_stop = shards.from_first(lambda: (report_due(), checkpoint_due(), stop_due() and stop()))
        if epoch == training.epochs:
            break
        if to_save or to_stop:
            shards.from_first(lambda: file.write(training.checkpoint()))
        if to_stop:
            report(Report(interrupted=True))
            return
        if to_report:
            report(Report(reported, training.history(reported)))
            reported = epoch
    shards.from_first(lambda: file.write(training.checkpoint()))
    report(Report(0, training.history(), tuple(map(_outcome, training.results()))))


def _check_memory(configs: list[TrainingConfig], device: torch.device, data_dir: Path, share: float) -> None:
    config = configs[0]
    size = size_of(config.data.name, data_dir).limited(config.data.limit)
    if len(configs) * config.epochs * size.train / config.batch_size < WORTH_A_PROBE:
        return
    key = (config.shape_key(), str(device))
    if key not in _footprints:
        # Compiling takes too long for two steps; without it, the training needs at least as much memory.
        _footprints[key] = footprint(config, size, device, compiled=False)
    needed = _footprints[key]
    if (fit := needed.largest(round(share * free_bytes(device)))) < len(configs):
        raise TooManyError(fit, len(configs))


class _Timer:
    """Returns true if `every_s` seconds have passed since it last returned true, or since it was created."""

    def __init__(self, every_s: float):
        self._every_s, self._since = every_s, time.monotonic()

    def __call__(self) -> bool:
        now = time.monotonic()
        due = now - self._since >= self._every_s
        if due:
            self._since = now
        return due


@contextlib.contextmanager
def failures_reported(configs: Sequence[TrainingConfig], report: Callable[[Report], None]) -> Generator[None]:
    """Reports an exception as failures of all members: Ray would start the cohort again after one."""
    try:
        yield
    except Exception as error:
        fit = error.fit if isinstance(error, TooManyError) else None
        report(Report(outcomes=failures([config.key() for config in configs], *reason_of(error), fit=fit)))


def reason_of(error: Exception) -> tuple[Reason | Fault, str]:
    """The reason of a failure, and its detail: a message, or the traceback if the error is unexpected."""
    if isinstance(error, StorageError):
        return "storage", str(error)
    if isinstance(error, DataError):
        return "data", f"on {platform.node()}: {error}"
    if isinstance(error, TooManyError):
        return "out_of_memory", str(error)
    # On a CPU PyTorch raises a plain RuntimeError.
    out_of_memory = isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)
    return "out_of_memory" if out_of_memory else "error", traceback.format_exc()


def _outcome(result: TrainingResult) -> Outcome:
    return Outcome(
        key=result.key,
        status=result.status,
        reason=result.reason,
        epochs=result.epochs,
        wall_s=result.wall_s,
        metrics=result.metrics,
        history=result.history,
    )
