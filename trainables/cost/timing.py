"""How long a step of training takes, measured: from that and the sizes of things follows how long trainings take."""

import hashlib
import json
import math
import time
from collections.abc import Sequence

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field

from trainables.components import SHAPE
from trainables.config import TrainingConfig
from trainables.data import Images
from trainables.data.sizes import Size
from trainables.measurements import DIAGNOSTICS
from trainables.models.base import ImageShape
from trainables.packing.cohort import Cohort

_NOT_IN_A_STEP = ("epochs", "data.name", "data.limit")
_FEW, _MORE = 1, 3


class Rate(BaseModel):
    """Seconds that one member takes in a cohort of some members, one thread each cohort.

    step_s: for a step of the optimizer. evaluation_s: for as many images in an evaluation.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    step_s: float = Field(ge=0)
    evaluation_s: float = Field(ge=0)
    members: int = Field(ge=1)

    def seconds(self, config: TrainingConfig, size: Size) -> float:
        """For a whole training, measurements included."""
        steps, evaluations = batches(config, size)
        return steps * self.step_s + evaluations * self.evaluation_s


def batches(config: TrainingConfig, size: Size) -> tuple[int, int]:
    """How many batches a whole training trains on, those of measurements included, and how many it evaluates."""
    steps, evaluations = (config.epochs * math.ceil(n / config.batch_size) for n in (size.train, size.validation))
    draws = config.diagnostics.draws
    measured = sum((draws or DIAGNOSTICS[name].draws) * len(epochs) for name, epochs in config.diagnostics.due())
    return steps + measured, evaluations


def program_key(config: TrainingConfig, image_shape: ImageShape) -> str:
    """Equal for configurations whose steps cost the same: all that decides the program, on images of one shape."""
    decides = {
        path: value
        for path, value, role in config.leaves()
        if role is SHAPE and path not in _NOT_IN_A_STEP and not path.startswith("diagnostics.")
    }
    text = json.dumps([decides, image_shape], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def measure(configs: Sequence[TrainingConfig], image_shape: ImageShape, device: torch.device) -> Rate:
    """Trains members of one shape for a few steps on random images, twice with different numbers of steps, so that
    steps and evaluation can be told apart."""
    seconds = [_epoch_s(configs, image_shape, steps, device) for steps in (_FEW, _MORE)]
    step = max(0.0, seconds[1] - seconds[0]) / (_MORE - _FEW)
    evaluation = max(0.0, seconds[0] - _FEW * step)
    return Rate(step_s=step / len(configs), evaluation_s=evaluation / len(configs), members=len(configs))


def _epoch_s(configs: Sequence[TrainingConfig], image_shape: ImageShape, steps: int, device: torch.device) -> float:
    """The shorter of two epochs, after one that warms up."""
    pixels = np.random.default_rng(0).integers(0, 256, (configs[0].batch_size * steps, *image_shape), dtype=np.uint8)
    cohort = Cohort(configs, Images(train=pixels, validation=pixels[: configs[0].batch_size]), device=device)
    # On a CPU other programs' time does not count: a machine that is measured need not be idle.
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    times = []
    for _ in range(3):
        started = clock()
        cohort.train_epoch()  # ends with metrics on the host, so nothing is still under way
        times.append(clock() - started)
    return min(times[1:])
