"""The adapter: a Tune trial that trains one cohort in a Ray Train TorchTrainer.

With one worker the trainer runs in local mode, inside the trial's own process, which Tune reuses for the next cohort.
With more, a worker group is started. Each worker trains its share of the members; where there are fewer members than
workers, all of them train every member, each on its share of the images of a batch (`trainables.shards`). Tune hears
rank 0 alone. In any case the loop is `train_cohort`, given a function that reports.
"""

import contextlib
import json
import os
import platform
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pyarrow import fs

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
        report({"results": [one | {"fit": error.fit} for one in failures(keys, *_told(error))]})
    except Exception as error:
        report({"results": failures([config.key() for config in configs], *_told(error))})


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


def _told(error: Exception) -> tuple[str, str]:
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
        on_gpu = task.device == "cuda"
        resources = {"CPU": 1, "GPU": 1 / task.per_gpu} if on_gpu else {"CPU": 1}
        scaling = train.ScalingConfig(num_workers=task.workers, use_gpu=on_gpu, resources_per_worker=resources)
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
    from ray.train.torch import get_device

    task = Task.from_json(config["task"])
    context = train.get_context()
    shards = Shards(context.get_world_rank(), context.get_world_size())
    torch.set_num_threads(task.threads)
    if task.device == "cuda":
        # A node's workers see all of its GPUs; this one's is that which messages of the group go through.
        device = get_device()
        torch.cuda.set_device(device)
        task = replace(task, device=str(device))
    configs = [TrainingConfig.model_validate(member) for member in task.configs]
    if len(configs) < shards.count:
        try:
            train_cohort(task, configs, train.report, name="members", every_s=REPORT_EVERY_S, shards=shards)
        except Exception as error:
            raise WorkerError(*_told(error)) from None  # the others wait for this one, until Ray Train ends them
        return
    own = configs[shards.rank :: shards.count]
    final: list[dict[str, Any]] = []
    try_cohort(task, own, final.append, name=f"members-{shards.rank}-of-{shards.count}", every_s=np.inf)
    gathered: list[Any] = [None] * shards.count
    dist.all_gather_object(gathered, final[-1]["results"])
    # All ranks report, as Ray Train demands; Tune hears the first.
    by_key = {result["key"]: result for results in gathered for result in results}
    train.report({"since": 0, "history": {}, "results": [by_key[c.key()] for c in configs]})
