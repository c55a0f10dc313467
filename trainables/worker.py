"""What trains a cohort: the task that a trial is given, the training loop, and what is reported. Needs no Ray.

`trainables.ray_train` runs it inside a Tune trial.
"""

import contextlib
import json
import platform
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from trainables.checkpoint import CheckpointFile, StorageError
from trainables.config import TrainingConfig
from trainables.cost.memory import Footprint, footprint, free_bytes
from trainables.data import DataError
from trainables.data.sizes import size_of
from trainables.halving import Halving
from trainables.reports import Fault, Outcome, Reason, Report, failures
from trainables.shards import ALONE, Shards
from trainables.training import CohortTraining, TrainingResult, resolve_device

REPORT_EVERY_S = STOP_EVERY_S = 1.0
WORTH_A_PROBE = 300
"""Steps of all members together from which on their memory is measured first, which takes some three steps and
evaluations. Shorter trainings are tried at once, and halved where they do not fit."""
_footprints: dict[tuple[str, str], Footprint] = {}
"""By shape and device: a process trains many cohorts of a shape."""


@dataclass(frozen=True)
class Task:
    """What a trial is given; plain data, carried as JSON."""

    key: str
    """Of the cohort."""
    configs: list[dict[str, Any]]
    device: str
    data_dir: str
    checkpoints: str
    """URI or path of the folder for this cohort's checkpoints."""
    checkpoint_every_s: float
    workers: int
    threads: int
    scratch: str
    """Folder for Ray Train's own files."""
    halving: dict[str, Any] | None = None
    """The rule by which members are stopped early, if there is one; the workers of a group each apply it to theirs."""
    per_gpu: int = 1
    """How many trials or workers share a GPU."""
    memory_share: float | None = None
    """The part of the device's free memory that the members may take together; None does not ask how much they need."""

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Task":
        return cls(**json.loads(text))


class WorkerError(Exception):
    """What went wrong in a worker whose group cannot go on without it: the reason of the failure, and its traceback."""

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
    """Trains members to their end, from their checkpoint if there is one.

    Metrics are reported at most every `every_s` seconds. The last report holds the outcomes and all metrics from the
    first epoch, so that nothing depends on a report that was lost.

    If several processes train these members together, all of them report at the same times. The first process reads
    and writes the checkpoint.

    Args:
        task: what the trial was given.
        configs: the members, of one shape.
        report: receives the reports.
        name: of the checkpoint file.
        every_s: the shortest time between two reports.
        stop: asked after each epoch, at most once a second; when true, the training saves its checkpoint, reports that
            it was interrupted and returns.
        shards: this process's part of a group that trains the same members.

    Raises:
        TooManyError: the members do not fit into memory; nothing was trained.
        StorageError: the checkpoint cannot be read or written.
        DataError: the images cannot be read.
    """
    device, data_dir = resolve_device(task.device), Path(task.data_dir)
    if len(configs) > 1 and task.memory_share is not None:
        _check_memory(configs, device, data_dir, task.memory_share)
    halving = Halving(**task.halving) if task.halving else None
    training = CohortTraining(configs, device=device, data_dir=data_dir, halving=halving, shards=shards)
    file = CheckpointFile(task.checkpoints, name)
    if (saved := shards.from_first(file.read)) is not None:
        with contextlib.suppress(ValueError):  # a damaged checkpoint costs the epochs it held, not the training
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
        # Not compiled, which would take longer than it is worth for two steps; that only ever needs less.
        _footprints[key] = footprint(config, size, device, compiled=False)
    needed = _footprints[key]
    if (fit := needed.largest(round(share * free_bytes(device)))) < len(configs):
        raise TooManyError(fit, len(configs))


class _Timer:
    """Whether so many seconds have passed since it last said that they have."""

    def __init__(self, every_s: float):
        self._every_s, self._since = every_s, time.monotonic()

    def __call__(self) -> bool:
        now = time.monotonic()
        due = now - self._since >= self._every_s
        if due:
            self._since = now
        return due


def try_cohort(
    task: Task,
    configs: list[TrainingConfig],
    report: Callable[[Report], None],
    *,
    name: str,
    every_s: float = REPORT_EVERY_S,
    stop: Callable[[], bool] = lambda: False,
) -> None:
    """Calls `train_cohort` and reports an exception as the failure of all members: Ray would try again if it rose."""
    try:
        train_cohort(task, configs, report, name=name, every_s=every_s, stop=stop)
    except Exception as error:
        fit = error.fit if isinstance(error, TooManyError) else None
        report(Report(outcomes=failures([config.key() for config in configs], *reason_of(error), fit=fit)))


def reason_of(error: Exception) -> tuple[Reason | Fault, str]:
    """The reason of a failure, and its detail."""
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
