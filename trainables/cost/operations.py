"""Counts the floating-point operations of a training, without training.

The loss of one step is computed on two images, for large networks on PyTorch's meta device, which keeps shapes and no
numbers. In a matrix product or
convolution, a multiplication with its addition counts as 2 operations. Backward, each of the two operands that needs a
gradient costs one more product of that size. Elementwise operations are not counted.

`torch.utils.flop_counter` gives the same counts (a test compares them), but it also runs the step backward and imports
the compiler. That takes seconds, too long for a plan.
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
from trainables.cost.size import meta_model, parameters
from trainables.cost.steps import batches, batches_without_guide, program_key
from trainables.data.sizes import Size
from trainables.models.base import ImageShape


class Operations(NamedTuple):
    """One member's floating-point operations for a batch.

    step: a training step. guide: the guide's part of it. evaluation: an evaluation of the batch.
    """

    step: int
    evaluation: int
    guide: int = 0

    def of_training(self, config: TrainingConfig, size: Size) -> int:
        """The operations of a whole training, including diagnostics."""
        size = size.limited(config.data.limit)
        steps, evaluations = batches(config, size)
        unguided = batches_without_guide(config, size)
        return steps * self.step + evaluations * self.evaluation - unguided * self.guide


def operations(config: TrainingConfig, image_shape: ImageShape) -> Operations:
    """The operations of a configuration on images [C, H, W]; cached for configurations whose steps cost the same.

    Raises:
        ValueError: the network does not fit the images.
    """
    key = program_key(config, image_shape)
    if key not in _known:
        _known[key] = _counted(config, image_shape)
    return _known[key]


_known: dict[str, Operations] = {}
_IMAGES = 2
"""Images in the counted batch: batch normalization needs two."""
_IN_MEMORY = 2**24
"""The most numbers that are computed on the CPU: for the meta device PyTorch imports its compiler, in two seconds."""


def _counted(config: TrainingConfig, image_shape: ImageShape) -> Operations:
    model = meta_model(config, image_shape)
    noise_shape = config.estimator.noise_shape((_IMAGES, *config.latent.z_shape))
    codes = math.ceil(math.prod(noise_shape) / math.prod(config.latent.z_shape))
    device = torch.device("cpu" if codes * parameters(config, image_shape) <= _IN_MEMORY else "meta")
    with device:
        tensors = {
            name: torch.zeros(value.shape, dtype=value.dtype, requires_grad=value.requires_grad)
            for name, value in model.state_dict(keep_vars=True).items()
        }
        knobs = {path: torch.tensor(value) for path, value in config.knobs().items()}
        knobs = objective.epoch_knobs(config, knobs | {"running_loss": torch.zeros(())}, 1)
        noise, x = torch.zeros(noise_shape), torch.zeros(_IMAGES, *image_shape)

    def counted(*, guided: bool) -> tuple[int, int]:
        with device, torch.enable_grad(), _Products() as products:
            objective.training_loss(config, model, tensors, x, noise, knobs, guided=guided)
        return config.batch_size * products.forward // _IMAGES, config.batch_size * products.backward // _IMAGES

    forward, backward = counted(guided=True)
    unguided = forward + backward if config.guide is None else sum(counted(guided=False))
    # An approximation: an evaluation has no guide, but decodes hard samples.
    return Operations(step=forward + backward, evaluation=forward, guide=forward + backward - unguided)


class _Products(TorchFunctionMode):
    """Counts the operations of products, forward and backward."""

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
"""The products that models and estimators use, each with a function that counts its additions."""
