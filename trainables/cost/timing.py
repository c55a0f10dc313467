"""Measures the time of a training step, and estimates from it the time of whole trainings."""

import time
from collections.abc import Sequence

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field

from trainables.config import TrainingConfig
from trainables.cost.operations import operations
from trainables.cost.steps import batches, batches_without_guide
from trainables.data import Images
from trainables.data.sizes import Size
from trainables.models.base import ImageShape
from trainables.packing.cohort import Cohort

_FEW, _MORE = 1, 3


class Rate(BaseModel):
    """Seconds for one member in a cohort of `members`, with one thread per cohort.

    step_s: for a training step on one batch, with the guide if there is one.
    evaluation_s: for the evaluation of one batch of the same size.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    step_s: float = Field(ge=0)
    evaluation_s: float = Field(ge=0)
    members: int = Field(ge=1)

    def seconds(self, config: TrainingConfig, size: Size) -> float:
        """The seconds of a whole training, including diagnostics.

        Raises:
            ValueError: the network does not fit the images.
        """
        steps, evaluations = batches(config, size)
        if unguided := batches_without_guide(config, size):
            counted = operations(config, size.image_shape)
            steps -= unguided * counted.guide / counted.step
        return steps * self.step_s + evaluations * self.evaluation_s


def measure(configs: Sequence[TrainingConfig], image_shape: ImageShape, device: torch.device) -> Rate:
    """Measures members of one shape on random images.

    They train with two different numbers of steps, which separates the time of a step from that of an evaluation.
    """
    seconds = [_epoch_s(configs, image_shape, steps, device) for steps in (_FEW, _MORE)]
    step = max(0.0, seconds[1] - seconds[0]) / (_MORE - _FEW)
    evaluation = max(0.0, seconds[0] - _FEW * step)
    return Rate(step_s=step / len(configs), evaluation_s=evaluation / len(configs), members=len(configs))


def _epoch_s(configs: Sequence[TrainingConfig], image_shape: ImageShape, steps: int, device: torch.device) -> float:
    """Seconds of the shorter of two epochs, after a warm-up epoch."""
    pixels = np.random.default_rng(0).integers(0, 256, (configs[0].batch_size * steps, *image_shape), dtype=np.uint8)
    cohort = Cohort(configs, Images(train=pixels, validation=pixels[: configs[0].batch_size]), device=device)
    # Processor time on a CPU, so that the machine need not be idle.
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    times = []
    for _ in range(3):
        started = clock()
        cohort.train_epoch()  # returns metrics on the host, so no kernel is still running
        times.append(clock() - started)
    return min(times[1:])
