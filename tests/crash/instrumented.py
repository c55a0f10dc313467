"""`python -m sweeps.run` with a given checkpoint interval, which notes every epoch that it trains in a file.

EPOCHS=file CHECKPOINT_EVERY_S=0 EPOCH_S=0 python instrumented.py NAME …

Each epoch takes EPOCH_S seconds longer than usual. CLOCK_JUMPS_S sets the clock of the driver forwards and
backwards by so many seconds, every second.
"""

import functools
import os
import time
from datetime import UTC, datetime
from types import SimpleNamespace

from sweeps.cli import run_app, single
from sweeps.driver import driver
from sweeps.on_ray import execute
from sweeps.records import lock
from sweeps.run import run


def set_clock(by_s: float) -> None:
    """Makes `time.time` jump every second."""
    now = time.time
    time.time = lambda: now() + by_s * (int(now()) % 3 - 1)
    driver.now = lambda: datetime.fromtimestamp(time.time(), UTC)


if "CLOCK_JUMPS_S" in os.environ:
    set_clock(float(os.environ["CLOCK_JUMPS_S"]))
NOTES, EPOCH_S = os.environ["EPOCHS"], float(os.environ.get("EPOCH_S", "0"))


def trial(config: dict[str, str]) -> None:
    """The trial, whose training appends a line "cohort epoch" to NOTES after each epoch."""
    from collections.abc import Iterator  # Ray does not send the top of this file to the trial's process

    from trainables import ray_train, training, worker

    task = worker.Task.from_json(config["task"])

    class Noted(training.CohortTraining):
        def __iter__(self) -> Iterator[int]:
            for epoch in super().__iter__():
                with open(NOTES, "a") as file:
                    file.write(f"{task.key} {epoch}\n")
                time.sleep(EPOCH_S)
                yield epoch

    worker.CohortTraining = Noted
    ray_train.trial(config)


execute.trial = trial
execute.Places = functools.partial(execute.Places, checkpoint_every_s=float(os.environ["CHECKPOINT_EVERY_S"]))

if "HOST" in os.environ:  # a driver with this host name, whose lock is stale after STALE_AFTER_S without a heartbeat
    stale_after_s = float(os.environ["STALE_AFTER_S"])
    lock.socket = SimpleNamespace(gethostname=lambda: os.environ["HOST"])
    lock.Lock = functools.partial(lock.Lock, beat_every_s=stale_after_s / 5, stale_after_s=stale_after_s)

if __name__ == "__main__":
    run_app(single(run), "instrumented")
