"""The residual convolutional autoencoder of DST A.1. Its codes lie on a grid of a quarter of the image's size.

The paper says: convolutions with residual connections, a latent space of 8 x 8 x 32, a decoder that mirrors the
encoder. The rest follows the autoencoder that it cites, van den Oord et al. 2017, section 4.1: two 4x4 convolutions of
stride 2, then residual blocks.

Height and width are padded with zeros to multiples of 8, and the decoder removes the padding: 28 x 28 becomes 32 x 32,
so MNIST has the same 8 x 8 grid as CIFAR-10.
"""

import math
from typing import ClassVar

from torch import Tensor, nn

from trainables.components import Name, PositiveShape, registered
from trainables.models.base import DECODERS, ENCODERS, Decoder, Encoder, ImageShape, unit_scale
from trainables.models.conv import by_output


class Residual(nn.Module):
    """A residual block x + branch(x); the branch is ReLU, 3x3 convolution, ReLU, 1x1 convolution."""

    def __init__(self, channels: int):
        super().__init__()
        self.branch = nn.Sequential(
            nn.ReLU(), nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(), nn.Conv2d(channels, channels, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


@registered(ENCODERS)
class ResidualEncoder(Encoder):
    """A network from the image to features [C', H/4, W/4], flattened; H and W are padded to multiples of 8.

    The codes of DST on 32x32 or 28x28 images need 8 * 8 * 32 = 2,048 bits.
    """

    name: Name = "residual"
    channels: PositiveShape = 64
    blocks: PositiveShape = 2
    packs_on_cpu: ClassVar[bool] = False

    def build(self, image_shape: ImageShape, features: int) -> nn.Module:
        """Builds the module (`Encoder.build`).

        Raises:
            ValueError: `features` is not a multiple of the grid's positions.
        """
        depth, *_ = _grid(features, image_shape)
        channels = self.channels
        return nn.Sequential(
            nn.ZeroPad2d(_margin(image_shape)),
            nn.Conv2d(image_shape[0], channels, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 4, stride=2, padding=1),
            *(Residual(channels) for _ in range(self.blocks)),
            nn.ReLU(),
            nn.Conv2d(channels, depth, 1),
            nn.Flatten(),
        )


@registered(DECODERS)
class ResidualDecoder(Decoder):
    """The mirror image of `ResidualEncoder`."""

    name: Name = "residual"
    channels: PositiveShape = 64
    blocks: PositiveShape = 2
    packs_on_cpu: ClassVar[bool] = False

    def build(self, features: int, image_shape: ImageShape, outputs: int) -> nn.Module:
        """Builds the module (`Decoder.build`).

        Raises:
            ValueError: `features` is not a multiple of the grid's positions.
        """
        shape = _grid(features, image_shape)
        channels = self.channels
        left, right, top, bottom = _margin(image_shape)
        return nn.Sequential(
            nn.Unflatten(1, shape),
            nn.Conv2d(shape[0], channels, 1),
            *(Residual(channels) for _ in range(self.blocks)),
            nn.ReLU(),
            nn.ConvTranspose2d(channels, channels, 4, stride=2, padding=1),
            nn.ReLU(),
            unit_scale(nn.ConvTranspose2d(channels, outputs * image_shape[0], 4, stride=2, padding=1), outputs),
            nn.ZeroPad2d((-left, -right, -top, -bottom)),
            *by_output(outputs, image_shape),
        )


def _margin(image_shape: ImageShape) -> tuple[int, int, int, int]:
    """The padding (left, right, top, bottom) that makes height and width multiples of 8."""
    _, height, width = image_shape
    down, across = -height % 8, -width % 8
    return across // 2, across - across // 2, down // 2, down - down // 2


def _grid(features: int, image_shape: ImageShape) -> tuple[int, int, int]:
    """The shape [C', H/4, W/4] of `features` numbers on the grid."""
    _, height, width = image_shape
    rows, columns = math.ceil(height / 8) * 2, math.ceil(width / 8) * 2
    if features % (rows * columns):
        raise ValueError(
            f"residual networks need as many features as fill a grid of {rows} x {columns} positions evenly, "
            f"got {features}"
        )
    return features // (rows * columns), rows, columns
