"""Computes the number of parameters and the size of checkpoints, without training."""

import torch

from trainables.config import TrainingConfig
from trainables.objective import VAE

_WHILE_TRAINING = 3
"""The numbers in a checkpoint for each parameter: its value and the optimizer's two moments."""


def meta_model(config: TrainingConfig, image_shape: tuple[int, int, int]) -> VAE:
    """A member's model on PyTorch's meta device, without memory.

    Raises:
        ValueError: the network does not fit the images, or a tensor would have more bytes than PyTorch can count.
    """
    try:
        with torch.device("meta"):
            return VAE(config, image_shape)
    except RuntimeError as error:
        raise ValueError(f"the network cannot be built: {str(error).splitlines()[0]}") from None


def parameters(config: TrainingConfig, image_shape: tuple[int, int, int]) -> int:
    """The number of parameters of a member's model; raises as `meta_model`."""
    return _numbers(config, image_shape)[0]


def checkpoint_bytes(config: TrainingConfig, image_shape: tuple[int, int, int], *, ended: bool = False) -> int:
    """A member's bytes in its cohort's checkpoint, in float32 and without its history.

    Args:
        config: of the member.
        image_shape: [C, H, W] of its data set.
        ended: True for a cohort that has ended, with a checkpoint of weights only; False while it trains.
    """
    learned, buffers = _numbers(config, image_shape)
    return 4 * ((1 if ended else _WHILE_TRAINING) * learned + buffers)


def _numbers(config: TrainingConfig, image_shape: tuple[int, int, int]) -> tuple[int, int]:
    """The number of elements in parameters and in buffers."""
    key = config.shape_key()
    if (key, image_shape) not in _known:
        model = meta_model(config, image_shape)
        learned = sum(parameter.numel() for parameter in model.parameters())
        _known[key, image_shape] = learned, sum(buffer.numel() for buffer in model.buffers())
    return _known[key, image_shape]


_known: dict[tuple[str, tuple[int, int, int]], tuple[int, int]] = {}
