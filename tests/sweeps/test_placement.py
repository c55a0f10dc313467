"""The resources of cohorts: parts of a GPU, and memory."""

import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch
from scripted import SMALL

from sweeps.errors import UserError
from sweeps.on_ray import cluster, execute
from sweeps.on_ray.authentication import own_token
from sweeps.planning.plan import Plan, PlannedCohort
from trainables import worker
from trainables.config import TrainingConfig
from trainables.cost.memory import USABLE, Footprint, footprint
from trainables.data.sizes import size_of
from trainables.reports import Outcome, Report, failures

MEMBERS = Plan(SMALL).members["grid"]


@pytest.fixture(scope="module")
def gpu():
    """Starts Ray with one pretended GPU, which nobody uses."""
    quiet = {"include_dashboard": False, "log_to_driver": False, "object_store_memory": 2**27}
    with own_token(None):  # a process keeps its way of authentication, and other tests run sweeps in it
        ray.init("local", num_cpus=2, num_gpus=1, **quiet)
        yield
        ray.shutdown()


class Work:
    """Hands out two cohorts and keeps their outcomes."""

    def __init__(self):
        self.queue = deque((PlannedCohort(MEMBERS[:4]), PlannedCohort(MEMBERS[4:])))
        self.running = 0
        self.outcomes: list[Outcome] = []

    def next(self) -> PlannedCohort | None:
        self.running += bool(self.queue)
        return self.queue.popleft() if self.queue else None

    def exhausted(self) -> bool:
        return not self.queue and not self.running

    def waiting(self) -> int:
        return len(self.queue)

    def resize(self, slots: int) -> None:
        pass

    def progressed(self, cohort, since, history) -> None:
        pass

    def check(self) -> None:
        pass

    def ended(self, cohort: PlannedCohort, outcomes: Sequence[Outcome]) -> None:
        self.running -= 1
        self.outcomes += outcomes


def meeting(folder: Path, patience_s: float):
    """A trial that reports its GPU and whether another trial ran at the same time."""

    def trial(config: dict[str, str]) -> None:
        from ray import tune

        own = folder / str(time.monotonic_ns())
        own.touch()
        deadline = time.monotonic() + patience_s
        while len(list(folder.iterdir())) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        told = f"GPUs {ray.get_gpu_ids()}, {len(list(folder.iterdir()))} at the same time"
        tune.report(Report(outcomes=failures(["key"], "error", told)).plain())
        time.sleep(0.5)
        own.unlink()

    return trial


@pytest.mark.parametrize(("per_gpu", "met"), [(2, 2), (1, 1)])
def test_cohorts_share_a_gpu_where_that_is_asked_for(gpu, monkeypatch, tmp_path, per_gpu, met):
    folder = tmp_path / "there"
    folder.mkdir()
    monkeypatch.setattr(execute, "trial", meeting(folder, patience_s=60 if met == 2 else 2))
    resources = cluster.available("auto", 1, None, per_gpu)
    assert (resources.device, resources.slots, resources.memory_share) == ("cuda", per_gpu, 1 / per_gpu)
    work = Work()
    execute.execute(work, resources, execute.Places(str(tmp_path), tmp_path))
    assert [outcome.detail for outcome in work.outcomes] == [f"GPUs [0], {met} at the same time"] * 2


def test_workers_of_a_cohort_share_gpus_too(gpu):
    resources = cluster.available("cuda", 2, None, 4)
    assert resources.slots == 2
    with pytest.raises(UserError, match="--workers 3: Ray has only 2 cuda units"):
        cluster.available("cuda", 3, None, 2)


def test_cpus_are_not_shared(gpu):
    with pytest.raises(UserError, match="--per-gpu 2 needs GPUs, but this run trains on CPUs"):
        cluster.available("cpu", 1, None, 2)
    assert cluster.available("cpu", 1, None, 1).memory_share == 1 / 2
    assert cluster.available("cpu", 1, 1, 1).memory_share == 1


def failing_in_one_worker():
    """A trial of two workers, one of which fails while the other waits for it."""

    def loop() -> None:
        import torch.distributed as dist
        from ray import train

        if train.get_context().get_world_rank() == 1:
            raise worker.WorkerError("out_of_memory", "CUDA out of memory, and where")
        dist.barrier()

    def trial(config: dict[str, str]) -> None:
        from ray import train
        from ray.train.torch import TorchTrainer

        scratch = worker.Task.from_json(config["task"]).scratch
        run_config = train.RunConfig(name="group", storage_path=scratch)
        TorchTrainer(loop, scaling_config=train.ScalingConfig(num_workers=2), run_config=run_config).fit()

    return trial


@pytest.mark.slow
def test_the_reason_why_one_worker_failed_is_that_of_its_members(gpu, monkeypatch, tmp_path):
    monkeypatch.setattr(execute, "trial", failing_in_one_worker())
    work, resources = Work(), cluster.Resources("cpu", slots=1, workers=2)
    execute.execute(work, resources, execute.Places(str(tmp_path), tmp_path))
    assert {(outcome.status, outcome.reason, outcome.detail) for outcome in work.outcomes} == {
        ("failed", "out_of_memory", "CUDA out of memory, and where")
    }
    assert len(work.outcomes) == len(MEMBERS)


def test_cohorts_share_out_the_cores_that_nobody_else_needs(gpu):
    eight = cluster.Resources("cpu", slots=8)
    assert [eight.threads(cohorts) for cohorts in (1, 2, 3, 8, 100)] == [8, 4, 2, 1, 1]
    assert cluster.Resources("cuda", slots=8).threads(1) == 1
    assert cluster.Resources("cpu", slots=8, workers=2).threads(1) == 1


# --- members that fit into memory ------------------------------------------------------------------------------------


def task(folder: Path, **changes: Any) -> worker.Task:
    configs = [member.config.model_dump(mode="json") for member in MEMBERS]
    parts = {"device": "cpu", "data_dir": "nowhere", "checkpoint_every_s": 60.0, "workers": 1, "threads": 1}
    return worker.Task(key="k", configs=configs, checkpoints=str(folder), scratch=str(folder), **(parts | changes))


def reported(task: worker.Task) -> tuple[Outcome, ...]:
    """The outcomes that a cohort reports."""
    configs = [TrainingConfig.model_validate(config) for config in task.configs]
    reports: list[dict[str, Any]] = []
    with worker.failures_reported(configs, reports.append):
        worker.train_cohort(task, configs, reports.append, name="members", every_s=np.inf)
    return reports[-1].outcomes


@pytest.fixture
def probed(monkeypatch):
    """Measures memory also for short trainings; forgets the measurements afterwards."""
    monkeypatch.setattr(worker, "WORTH_A_PROBE", 0)
    monkeypatch.setattr(worker, "_footprints", {})


def test_a_cohort_that_would_not_fit_says_how_many_would_and_trains_nothing(probed, tmp_path, monkeypatch):
    monkeypatch.setattr(worker, "footprint", lambda *_, **__: Footprint(fixed=100, member=10))
    monkeypatch.setattr(worker, "free_bytes", lambda device: 400)
    results = reported(task(tmp_path, memory_share=0.5))  # 0.8 * 200 - 100 leave room for six
    assert [outcome.fit for outcome in results] == [6] * len(MEMBERS)
    assert {(outcome.status, outcome.reason) for outcome in results} == {("failed", "out_of_memory")}
    assert list(tmp_path.iterdir()) == []
    assert {outcome.status for outcome in reported(task(tmp_path, memory_share=1.0))} == {"finished"}


def test_memory_is_measured_once_for_a_shape(probed, tmp_path, monkeypatch):
    asked: list[TrainingConfig] = []
    monkeypatch.setattr(
        worker, "footprint", lambda config, *_, **__: asked.append(config) or Footprint(fixed=0, member=1)
    )
    for folder in ("one", "two"):
        reported(task(tmp_path / folder, memory_share=1.0))
    assert len(asked) == 1


def test_short_trainings_are_tried_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(worker, "footprint", lambda *_, **__: pytest.fail("asked"))
    assert {outcome.status for outcome in reported(task(tmp_path, memory_share=1.0))} == {"finished"}


def test_a_cohort_of_a_given_size_is_not_asked(probed, tmp_path, monkeypatch):
    monkeypatch.setattr(worker, "footprint", lambda *_, **__: pytest.fail("asked"))
    assert {outcome.status for outcome in reported(task(tmp_path))} == {"finished"}


def test_what_a_cohort_needs_is_measured_as_it_is_trained(probed, tmp_path, monkeypatch):
    needed = footprint(MEMBERS[0].config, size_of("digits", Path("nowhere")), torch.device("cpu"))
    for count in (2, 5):
        free = (needed.fixed + (count + 0.5) * needed.member) / USABLE
        monkeypatch.setattr(worker, "free_bytes", lambda device, free=free: free)
        assert {outcome.fit for outcome in reported(task(tmp_path, memory_share=1.0))} == {count}
