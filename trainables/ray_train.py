"""The adapter: a Tune trial that trains one cohort in a Ray Train TorchTrainer.

With one worker the trainer runs in local mode, inside the trial's own process, which Tune reuses for the next cohort.
With more, a worker group is started. Each worker trains its share of the members; where there are fewer members than
workers, all of them train every member, each on its share of the images of a batch (`trainables.shards`). Tune hears
rank 0 alone. In any case the loop is `train_cohort`, given a function that reports.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from trainables.config import TrainingConfig
from trainables.shards import Shards
from trainables.worker import REPORT_EVERY_S, Task, WorkerError, reason_of, train_cohort, try_cohort


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
            raise WorkerError(*reason_of(error)) from None  # the others wait for this one, until Ray Train ends them
        return
    own = configs[shards.rank :: shards.count]
    final: list[dict[str, Any]] = []
    try_cohort(task, own, final.append, name=f"members-{shards.rank}-of-{shards.count}", every_s=np.inf)
    gathered: list[Any] = [None] * shards.count
    dist.all_gather_object(gathered, final[-1]["results"])
    # All ranks report, as Ray Train demands; Tune hears the first.
    by_key = {result["key"]: result for results in gathered for result in results}
    train.report({"since": 0, "history": {}, "results": [by_key[c.key()] for c in configs]})
