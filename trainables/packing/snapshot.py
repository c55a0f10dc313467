"""Members after an epoch, with the images and the noise for measuring them.

Shapes. m members of one stack, B images of a batch, N images of a split.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from trainables.config import TrainingConfig
from trainables.objective import Tensors
from trainables.pixels import observed
from trainables.streams import Purpose, Streams


@dataclass(frozen=True)
class Snapshot:
    """A stack of members as evaluation and diagnostics see it; measuring changes nothing in them.

    Images and noise are the same in every epoch, for a member alone or packed, so measurements are comparable.
    """

    config: TrainingConfig
    """Any member's configuration; only its shape fields are read."""
    parameters: Tensors
    """By name in the model, each [m, ...]."""
    buffers: Tensors
    """By name in the model, each [m, ...]."""
    knobs: Tensors
    """The epoch's knobs by dotted path, and `running_loss` in nats per image, each [m]."""
    images: Tensor
    """uint8 [N, C, H, W], of the validation split; of the test split for a report's final figures."""
    streams: Streams
    lift: Callable[[Callable[..., Any]], Callable[..., Any]]
    """Turns a function (config, model, tensors, …) of one member into a function (tensors, …) of the stack."""

    @property
    def tensors(self) -> Tensors:
        """Parameters and buffers together."""
        return self.parameters | self.buffers

    def batches(self, size: int) -> Iterator[Tensor]:
        """The images as the members see them, in order, in batches of `size`: each [m, B, C, H, W]."""
        m = len(self.knobs["running_loss"])
        for step, batch in enumerate(self.images.split(size)):
            stacked = batch.expand(m, *batch.shape)
            purpose = Purpose.EVALUATION_PIXELS
            yield observed(self.config.data.pixels, stacked, self.streams, purpose, epoch=0, step=step)

    def noise(self, shape: tuple[int, ...], purpose: Purpose, *, step: int, draw: int = 0) -> Tensor:
        """Standard noise [m, *shape] of the latent family for the draw-th code of batch `step`."""
        return getattr(self.streams, self.config.latent.noise)(shape, purpose, epoch=draw, step=step)
