"""The adapter to Ray: a Tune trial that trains one cohort in a Ray Train TorchTrainer.

With one worker, the trainer runs in local mode, inside the trial's own process, which Tune reuses for the next cohort.
With more workers, a worker group is started. Each worker trains its share of the members. If there are fewer members
than workers, every worker trains all members, each on its share of the images of a batch (`trainables.shards`). Tune
receives only the reports of the worker with rank 0. The training itself is in `trainables.worker`.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from trainables.config import TrainingConfig
from trainables.reports import Report
from trainables.shards import Shards
from trainables.worker import Task, WorkerError, failures_reported, reason_of, train_cohort

_STOP = "vae-sweeps stop"
"""The namespace of stop requests in Ray's key-value store."""


def trial(config: dict[str, str]) -> None:
    """A Tune function trainable that trains one cohort; config["task"] is its `Task` as JSON."""
    from ray import train
    from ray.train.torch import TorchTrainer

    task = Task.from_json(config["task"])
    torch.set_num_threads(task.threads)
    run_config = train.RunConfig(name=task.key, storage_path=task.scratch)
    if task.workers == 1:
        loop, scaling = _local_loop, train.ScalingConfig(num_workers=0)
    else:
        from ray.tune.integration.ray_train import TuneReportCallback  # can be imported only inside a trial

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

    def tell(report: Report) -> None:
        tune.report(report.plain())

    with failures_reported(configs, tell):
        train_cohort(task, configs, tell, name="members", stop=lambda: asked_to_stop(task.scratch))


def _worker_loop(config: dict[str, str]) -> None:
    from ray import train
    from ray.train.torch import get_device

    def tell(report: Report) -> None:
        train.report(report.plain())  # Ray Train needs reports of all ranks; Tune receives that of rank 0

    task = Task.from_json(config["task"])
    context = train.get_context()
    shards = Shards(context.get_world_rank(), context.get_world_size())
    torch.set_num_threads(task.threads)
    if task.device == "cuda":
        # A node's workers see all of its GPUs; the group communicates through the current device.
        device = get_device()
        torch.cuda.set_device(device)
        task = replace(task, device=str(device))
    configs = [TrainingConfig.model_validate(member) for member in task.configs]

    def stop() -> bool:
        return asked_to_stop(task.scratch)

    if len(configs) < shards.count:
        try:
            train_cohort(task, configs, tell, name="members", stop=stop, shards=shards)
        except Exception as error:
            raise WorkerError(*reason_of(error)) from None  # other workers wait for this one until Ray Train ends them
        return
    own = configs[shards.rank :: shards.count]
    reports: list[Report] = []
    name = f"members-{shards.rank}-of-{shards.count}"
    with failures_reported(own, reports.append):
        train_cohort(task, own, reports.append, name=name, every_s=np.inf, stop=stop)
    gathered: list[Any] = [None] * shards.count
    dist.all_gather_object(gathered, reports[-1])
    if any(report.interrupted for report in gathered):
        tell(Report(interrupted=True))  # finished workers saved their checkpoints, and report again after a restart
        return
    outcomes = {outcome.key: outcome for report in gathered for outcome in report.outcomes}
    tell(Report(outcomes=tuple(outcomes[config.key()] for config in configs)))


# --- requests to stop ------------------------------------------------------------------------------------------------


def ask_to_stop(run: str) -> None:
    """Asks all trials of a run to save their checkpoints and end. `run` is the `scratch` folder of their tasks."""
    from ray.experimental.internal_kv import _internal_kv_put

    _internal_kv_put(run, b"1", namespace=_STOP)


def asked_to_stop(run: str) -> bool:
    """Whether the trials of a run were asked to stop. Takes about a millisecond, in any process of the cluster."""
    from ray.experimental.internal_kv import _internal_kv_exists

    return _internal_kv_exists(run, namespace=_STOP)


def forget_stop(run: str) -> None:
    """Removes the stop request of an ended run from the cluster."""
    from ray.experimental.internal_kv import _internal_kv_del

    _internal_kv_del(run, namespace=_STOP)
