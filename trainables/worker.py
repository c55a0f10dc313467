"""What trains a cohort: the task that a trial is given, the training loop, and what is reported. Needs no Ray.

`trainables.ray_train` runs it inside a Tune trial.
"""

import contextlib
import json
import platform
import time
import traceback
from collections.abc import Callable, Iterable
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
from trainables.shards import ALONE, Shards
from trainables.training import CohortTraining, TrainingResult, resolve_device

REPORT_EVERY_S = 1.0
WORTH_A_PROBE = 300
"""Steps of all members together from which on their memory is measured first, which takes some three steps and
evaluations. Shorter trainings are tried at once, and halved where they do not fit."""
Report = Callable[[dict[str, Any]], None]
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

    def __init__(self, reason: str, detail: str):
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


class TooManyError(Exception):
    """More members than fit into memory together."""

    def __init__(self, fit: int, members: int):
        super().__init__(f"{fit} of {members} members fit into memory")
        self.fit = fit


def train_cohort(
    task: Task, configs: list[TrainingConfig], report: Report, *, name: str, every_s: float, shards: Shards = ALONE
) -> None:
    """Trains members to their end, going on from their checkpoint if there is one.

    Reports {"since": epoch, "history": metrics [epochs, M] since then} at most every `every_s` seconds, and at the end
    the same with {"results": [...]}, from the first epoch on, so that nothing depends on a report that was lost.

    Of several processes that train these members together, all report at the same times, and the first one reads and
    writes the checkpoint.

    Raises:
        TooManyError: the members would not fit into memory; nothing was trained.
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
    report_due, checkpoint_due = _Timer(every_s), _Timer(task.checkpoint_every_s)
    for epoch in training:
        to_report, to_save = shards.from_first(lambda: (report_due(), checkpoint_due()))
        if to_report and epoch < training.epochs:
            report({"since": reported, "history": training.history(reported)})
            reported = epoch
        if to_save:
            shards.from_first(lambda: file.write(training.checkpoint()))
    shards.from_first(lambda: file.write(training.checkpoint()))
    report({"since": 0, "history": training.history(), "results": [_plain(result) for result in training.results()]})


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


def try_cohort(task: Task, configs: list[TrainingConfig], report: Report, *, name: str, every_s: float) -> None:
    """`train_cohort`; an exception is reported, as the failure of all members. Raised, it would be tried again."""
    try:
        train_cohort(task, configs, report, name=name, every_s=every_s)
    except TooManyError as error:
        keys = [config.key() for config in configs]
        report({"results": [one | {"fit": error.fit} for one in failures(keys, *reason_of(error))]})
    except Exception as error:
        report({"results": failures([config.key() for config in configs], *reason_of(error))})


def failures(keys: Iterable[str], reason: str, detail: str) -> list[dict[str, Any]]:
    """Results of members of whose training nothing is left."""
    return [
        {
            "key": key,
            "status": "failed",
            "reason": reason,
            "detail": detail,
            "epochs": 0,
            "wall_s": 0.0,
            "metrics": {},
            "history": {},
        }
        for key in keys
    ]


def reason_of(error: Exception) -> tuple[str, str]:
    """Reason and detail of a failure."""
    if isinstance(error, StorageError):
        return "storage", str(error)
    if isinstance(error, DataError):
        return "data", f"on {platform.node()}: {error}"
    if isinstance(error, TooManyError):
        return "out_of_memory", str(error)
    # On a CPU PyTorch raises a plain RuntimeError.
    out_of_memory = isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)
    return "out_of_memory" if out_of_memory else "error", traceback.format_exc()


def _plain(result: TrainingResult) -> dict[str, Any]:
    return {
        name: getattr(result, name) for name in ("key", "status", "reason", "epochs", "wall_s", "metrics", "history")
    }
