"""The adapter: a Tune trial that trains one cohort in a Ray Train TorchTrainer.

With one worker the trainer runs in local mode, inside the trial's own process, which Tune reuses for the next cohort.
With more, a worker group is started and each worker trains its share of the members; rank 0 gathers and reports, since
Tune hears rank 0 alone. Either way the loop is `train_cohort`, given a function that reports.
"""

import contextlib
import json
import os
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pyarrow import fs

from trainables.config import TrainingConfig
from trainables.halving import Halving
from trainables.training import CohortTraining, TrainingResult, resolve_device

REPORT_EVERY_S = 1.0
Report = Callable[[dict[str, Any]], None]


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

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Task":
        return cls(**json.loads(text))


class StorageError(Exception):
    """A checkpoint cannot be read or written, which is the fault of where it lies and not of the training."""


class CheckpointFile:
    """The latest checkpoint of one worker's members, replaced atomically.

    Raises:
        StorageError: on reading and writing, for whatever the file system complains of.
    """

    def __init__(self, folder: str, name: str):
        self._fs, root = fs.FileSystem.from_uri(folder) if "://" in folder else (fs.LocalFileSystem(), folder)
        self._root, self._path = root, f"{root}/{name}.safetensors"

    def read(self) -> bytes | None:
        """Its content, if there is one."""
        try:
            with self._fs.open_input_stream(self._path) as stream:
                return stream.read()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StorageError(str(error)) from error

    def write(self, content: bytes) -> None:
        # Named by its process: one whose driver was killed may be writing still when another takes its place.
        partial = f"{self._path}.{os.getpid()}.partial" if isinstance(self._fs, fs.LocalFileSystem) else self._path
        try:
            self._fs.create_dir(self._root, recursive=True)
            with self._fs.open_output_stream(partial) as stream:
                stream.write(content)
            if partial != self._path:
                self._fs.move(partial, self._path)
        except OSError as error:
            if partial != self._path:
                with contextlib.suppress(OSError):  # what is left of it would take the space that is missing
                    self._fs.delete_file(partial)
            raise StorageError(str(error)) from error


def last_saved_ns(folder: str) -> int:
    """When a cohort's latest checkpoint was written, in nanoseconds since 1970; 0 if there is none to be read."""
    system, root = fs.FileSystem.from_uri(folder) if "://" in folder else (fs.LocalFileSystem(), folder)
    with contextlib.suppress(OSError):
        found = system.get_file_info(fs.FileSelector(root, allow_not_found=True))
        return max((info.mtime_ns or 0 for info in found if info.extension == "safetensors"), default=0)
    return 0


def train_cohort(task: Task, configs: list[TrainingConfig], report: Report, *, name: str, every_s: float) -> None:
    """Trains members to their end, going on from their checkpoint if there is one.

    Reports {"since": epoch, "history": metrics [epochs, M] since then} at most every `every_s` seconds, and at the end
    the same with {"results": [...]}, from the first epoch on, so that nothing depends on a report that was lost.
    """
    halving = Halving(**task.halving) if task.halving else None
    training = CohortTraining(
        configs, device=resolve_device(task.device), data_dir=Path(task.data_dir), halving=halving
    )
    file = CheckpointFile(task.checkpoints, name)
    if (saved := file.read()) is not None:
        with contextlib.suppress(ValueError):  # a damaged checkpoint costs the epochs it held, not the training
            training.restore(saved)
    reported, last_report = 0, time.monotonic()
    last_checkpoint = time.monotonic()
    for epoch in training:
        now = time.monotonic()
        if now - last_report >= every_s and epoch < training.epochs:
            report({"since": reported, "history": training.history(reported)})
            reported, last_report = epoch, now
        if now - last_checkpoint >= task.checkpoint_every_s:
            file.write(training.checkpoint())
            last_checkpoint = now
    file.write(training.checkpoint())
    report({"since": 0, "history": training.history(), "results": [_plain(result) for result in training.results()]})


def try_cohort(task: Task, configs: list[TrainingConfig], report: Report, *, name: str, every_s: float) -> None:
    """`train_cohort`; an exception is reported, as the failure of all members. Raised, it would be tried again."""
    try:
        train_cohort(task, configs, report, name=name, every_s=every_s)
    except StorageError as error:
        report({"results": failures([config.key() for config in configs], "storage", str(error))})
    except Exception as error:
        report({"results": failures([config.key() for config in configs], _reason(error), traceback.format_exc())})


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


def _reason(error: Exception) -> str:
    # On a CPU PyTorch raises a plain RuntimeError.
    out_of_memory = isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)
    return "out_of_memory" if out_of_memory else "error"


def _plain(result: TrainingResult) -> dict[str, Any]:
    return {
        name: getattr(result, name) for name in ("key", "status", "reason", "epochs", "wall_s", "metrics", "history")
    }


def trial(config: dict[str, str]) -> None:
    """A Tune function trainable: one cohort, from config["task"]."""
    from ray import train
    from ray.train.torch import TorchTrainer

    task = Task.from_json(config["task"])
    torch.set_num_threads(task.threads)
    run_config = train.RunConfig(name=task.key, storage_path=task.scratch)
    if task.workers == 1:
        loop, scaling = _local_loop, train.ScalingConfig(num_workers=0)
    else:
        from ray.tune.integration.ray_train import TuneReportCallback  # works inside a trial only

        loop = _worker_loop
        scaling = train.ScalingConfig(
            num_workers=task.workers, use_gpu=task.device == "cuda", resources_per_worker={"CPU": 1}
        )
        run_config.callbacks = [TuneReportCallback()]
    TorchTrainer(loop, train_loop_config={"task": config["task"]}, scaling_config=scaling, run_config=run_config).fit()


def _local_loop(config: dict[str, str]) -> None:
    from ray import tune

    task = Task.from_json(config["task"])
    configs = [TrainingConfig.model_validate(member) for member in task.configs]
    try_cohort(task, configs, tune.report, name="members", every_s=REPORT_EVERY_S)


def _worker_loop(config: dict[str, str]) -> None:
    import torch.distributed as dist
    from ray import train

    task = Task.from_json(config["task"])
    context = train.get_context()
    rank, workers = context.get_world_rank(), context.get_world_size()
    torch.set_num_threads(task.threads)
    configs = [TrainingConfig.model_validate(member) for member in task.configs]
    share = range(len(configs))[rank::workers]
    final: list[dict[str, Any]] = []
    if share:
        try_cohort(
            task, [configs[index] for index in share], final.append, name=f"members-{rank}-of-{workers}", every_s=np.inf
        )
    gathered: list[Any] = [None] * workers
    dist.all_gather_object(gathered, final[-1]["results"] if final else [])
    # All ranks report, as Ray Train demands; Tune hears the first.
    by_key = {result["key"]: result for results in gathered for result in results}
    train.report({"since": 0, "history": {}, "results": [by_key[c.key()] for c in configs]})
