"""Counts the steps of a training, and tells which trainings have steps of equal cost."""

import hashlib
import json
import math

from trainables.components import SHAPE
from trainables.config import TrainingConfig
from trainables.data.sizes import Size
from trainables.measurements import DIAGNOSTICS
from trainables.models.base import ImageShape

_NOT_IN_A_STEP = ("epochs", "data.name", "data.limit")


def batches(config: TrainingConfig, size: Size) -> tuple[int, int]:
    """The number of batches that a whole training trains on, including those of diagnostics, and that it evaluates."""
    steps, evaluations = (config.epochs * math.ceil(n / config.batch_size) for n in (size.train, size.validation))
    draws = config.diagnostics.draws
    measured = sum((draws or DIAGNOSTICS[name].draws) * len(epochs) for name, epochs in config.diagnostics.due())
    return steps + measured, evaluations


def batches_without_guide(config: TrainingConfig, size: Size) -> int:
    """The number of batches on which a training with a guide trains after its guide is over; 0 without a guide."""
    if config.guide is None:
        return 0
    return (config.epochs - config.guide.epochs(config.epochs)) * math.ceil(size.train / config.batch_size)


def program_key(config: TrainingConfig, image_shape: ImageShape) -> str:
    """A hash of all fields that decide the program, and of the image shape; equal keys mean steps of equal cost."""
    decides = {
        path: value
        for path, value, role in config.leaves()
        if role is SHAPE and path not in _NOT_IN_A_STEP and not path.startswith("diagnostics.")
    }
    text = json.dumps([decides, image_shape], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
