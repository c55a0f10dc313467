"""`python -m sweeps.run` that saves checkpoints every half second, and notes every epoch it trains in a file.

EPOCHS=file python instrumented.py NAME …
"""

import functools
import os
from typing import Any

from sweeps import execute
from sweeps.cli import run_app, single
from sweeps.run import run

NOTES = os.environ["EPOCHS"]


def trial(config: dict[str, str]) -> None:
    """The trial, whose training appends a line "cohort epoch" to NOTES after each epoch."""
    from trainables import ray_train, training

    task = ray_train.Task.from_json(config["task"])

    class Noted(training.CohortTraining):
        def __iter__(self) -> Any:
            for epoch in super().__iter__():
                with open(NOTES, "a") as file:
                    file.write(f"{task.key} {epoch}\n")
                yield epoch

    ray_train.CohortTraining = Noted
    ray_train.trial(config)


execute.trial = trial
execute.Places = functools.partial(execute.Places, checkpoint_every_s=0.5)

if __name__ == "__main__":
    run_app(single(run), "instrumented")
