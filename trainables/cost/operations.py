"""How many floating-point operations a training takes, counted without training it.

The loss of one step is computed on PyTorch's meta device, which keeps shapes and no numbers. Each product of matrices,
or convolution, counts 2 operations for a multiplication and addition; backward it is one more product of that size for
each of its two operands that needs a gradient. What is elementwise is not counted.

`torch.utils.flop_counter` counts the same (a test compares them), but has to run the step backward as well, and imports
the compiler for it: seconds, of which a plan has few.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from trainables import objective
from trainables.config import TrainingConfig
from trainables.cost.timing import batches, program_key
from trainables.data.sizes import Size
from trainables.models.base import ImageShape


class Operations(NamedTuple):
    """Of one member, for a batch: a step of the optimizer, and an evaluation."""

    step: int
    evaluation: int

    def of_training(self, config: TrainingConfig, size: Size) -> int:
        """Of a whole training, measurements included."""
        steps, evaluations = batches(config, size.limited(config.data.limit))
        return steps * self.step + evaluations * self.evaluation


def operations(config: TrainingConfig, image_shape: ImageShape) -> Operations:
    """The operations of a configuration on images of one shape; equal configurations are counted once.

    Raises:
        ValueError: the network does not go with the images.
    """
    key = program_key(config, image_shape)
    if key not in _known:
        _known[key] = _counted(config, image_shape)
    return _known[key]


_known: dict[str, Operations] = {}
_IMAGES = 2
"""As many as batch normalization needs."""


def _counted(config: TrainingConfig, image_shape: ImageShape) -> Operations:
    with torch.device("meta"):
        model = objective.VAE(config, image_shape)
    tensors = {
        name: torch.zeros(value.shape, dtype=value.dtype, requires_grad=value.requires_grad)
        for name, value in model.state_dict(keep_vars=True).items()
    }
    knobs = {path: torch.tensor(value) for path, value in config.knobs().items()} | {"running_loss": torch.zeros(())}
    noise = torch.zeros(config.estimator.noise_shape((_IMAGES, *config.latent.z_shape)))
    with torch.enable_grad(), _Products() as products:
        knobs = objective.epoch_knobs(config, knobs, 1)
        objective.training_loss(config, model, tensors, torch.zeros(_IMAGES, *image_shape), noise, knobs)
    forward, backward = (config.batch_size * count // _IMAGES for count in (products.forward, products.backward))
    # An evaluation has no guide, but decodes hard samples beside: about a forward pass.
    return Operations(step=forward + backward, evaluation=forward)


class _Products(TorchFunctionMode):
    """Counts the operations of products, as they are called and as they will be differentiated."""

    def __init__(self) -> None:
        super().__init__()
        self.forward = self.backward = 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        if (additions := _ADDITIONS.get(func)) is not None:
            count = 2 * additions(output, *args)
            self.forward += count
            self.backward += count * sum(operand.requires_grad for operand in args[:2])
        return output


def _matrices(output: Tensor, a: Tensor, *rest: Tensor) -> int:
    return output.numel() * a.shape[-1]


def _convolution(output: Tensor, x: Tensor, weight: Tensor, *rest: Any) -> int:
    return output.numel() * math.prod(weight.shape[1:])


def _transposed(output: Tensor, x: Tensor, weight: Tensor, *rest: Any) -> int:
    return x.numel() * math.prod(weight.shape[1:])


_ADDITIONS: dict[Callable[..., Any], Callable[..., int]] = {
    F.linear: _matrices,
    torch.matmul: _matrices,
    Tensor.matmul: _matrices,
    Tensor.__matmul__: _matrices,
    F.conv2d: _convolution,
    F.conv_transpose2d: _transposed,
}
"""The products that models and estimators use, and how many additions one of them is."""
