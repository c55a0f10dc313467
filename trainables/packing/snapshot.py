"""Members as they stand after an epoch, and the images and noise that they are measured with.

Shapes. m members of one stack, B images of a batch, N validation images.
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
    """What evaluation and diagnostics may know of a stack of members; measuring changes nothing in them.

    Images and noise are the same in every epoch, and for a member alone or packed: two measurements are comparable.
    """

    config: TrainingConfig
    """Of any of the members: only its shape fields are read."""
    parameters: Tensors
    """By name in the model, each [m, ...]."""
    buffers: Tensors
    """By name in the model, each [m, ...]."""
    knobs: Tensors
    """Knobs as of the epoch by dotted path, and `running_loss`, each [m]."""
    images: Tensor
    """uint8 [N, C, H, W]; of the validation split, but for a report's last figures."""
    streams: Streams
    lift: Callable[[Callable[..., Any]], Callable[..., Any]]
    """Makes of a function (config, model, tensors, …) of one member one of (tensors, …) of the stack."""

    @property
    def tensors(self) -> Tensors:
        """Parameters and buffers, what functions of one member take."""
        return self.parameters | self.buffers

    def batches(self, size: int) -> Iterator[Tensor]:
        """What the members see of the images, in order, `size` at a time: each [m, B, C, H, W]."""
        m = len(self.knobs["running_loss"])
        for step, batch in enumerate(self.images.split(size)):
            stacked = batch.expand(m, *batch.shape)
            purpose = Purpose.EVALUATION_PIXELS
            yield observed(self.config.data.pixels, stacked, self.streams, purpose, epoch=0, step=step)

    def noise(self, shape: tuple[int, ...], purpose: Purpose, *, step: int, draw: int = 0) -> Tensor:
        """Standard noise [m, *shape] of the latent family for the draw-th code of batch `step`."""
        return getattr(self.streams, self.config.latent.noise)(shape, purpose, epoch=draw, step=step)
