"""How large a training is, found without training it."""

import torch

from trainables.config import TrainingConfig
from trainables.objective import VAE

_COPIES = 3
"""Of each parameter in a checkpoint: its value and the optimizer's two moments."""


def parameters(config: TrainingConfig, image_shape: tuple[int, int, int]) -> int:
    """How many numbers a member's model learns. The model is built without memory (PyTorch's meta device)."""
    return _numbers(config, image_shape)[0]


def checkpoint_bytes(config: TrainingConfig, image_shape: tuple[int, int, int]) -> int:
    """A member's share of its cohort's checkpoint, in float32 and without its history."""
    learned, kept = _numbers(config, image_shape)
    return 4 * (_COPIES * learned + kept)


def _numbers(config: TrainingConfig, image_shape: tuple[int, int, int]) -> tuple[int, int]:
    """Elements of parameters and of buffers."""
    key = config.shape_key()
    if (key, image_shape) not in _known:
        with torch.device("meta"):
            model = VAE(config, image_shape)
        learned = sum(parameter.numel() for parameter in model.parameters())
        _known[key, image_shape] = learned, sum(buffer.numel() for buffer in model.buffers())
    return _known[key, image_shape]


_known: dict[tuple[str, tuple[int, int, int]], tuple[int, int]] = {}
