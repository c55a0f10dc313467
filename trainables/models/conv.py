"""The convolutional networks of Silent Gradients, layer by layer as in its Tables 5 to 8.

The paper gives kernels, strides, paddings and activations, but not the numbers of channels. They are fields here, with
defaults of this project.
"""

import math
from itertools import pairwise
from typing import Annotated, ClassVar

from torch import nn

from trainables.components import SHAPE, Count, Name, PositiveShape, registered
from trainables.models.base import DECODERS, ENCODERS, Decoder, Encoder, ImageShape, unit_scale
from trainables.models.normalization import BatchNorm

FourWidths = Annotated[tuple[Count, Count, Count, Count], SHAPE]


@registered(ENCODERS)
class Conv3Encoder(Encoder):
    """Three 3x3 convolutions at full resolution and a linear layer, for MNIST (SG Table 5)."""

    name: Name = "conv3"
    channels: PositiveShape = 32
    packs_on_cpu: ClassVar[bool] = False

    def build(self, image_shape: ImageShape, features: int) -> nn.Module:
        colours, height, width = image_shape
        return nn.Sequential(
            nn.Conv2d(colours, self.channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(self.channels, self.channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(self.channels, self.channels, 3, padding=1),
            nn.Flatten(),
            nn.Linear(self.channels * height * width, features),
        )


@registered(DECODERS)
class Conv5Decoder(Decoder):
    """A linear layer to full resolution, four 3x3 convolutions and a 1x1 one, for MNIST (SG Table 6)."""

    name: Name = "conv5"
    channels: PositiveShape = 32
    packs_on_cpu: ClassVar[bool] = False

    def build(self, features: int, image_shape: ImageShape, outputs: int) -> nn.Module:
        colours, height, width = image_shape
        layers: list[nn.Module] = [
            nn.Linear(features, self.channels * height * width),
            nn.Unflatten(1, (self.channels, height, width)),
        ]
        for _ in range(4):
            layers += [nn.Conv2d(self.channels, self.channels, 3, padding=1), nn.ReLU()]
        layers.append(unit_scale(nn.Conv2d(self.channels, outputs * colours, 1), outputs))
        return nn.Sequential(*layers, *by_output(outputs, image_shape))


@registered(ENCODERS)
class StridedEncoder(Encoder):
    """Three 4x4 convolutions of stride 2 and one without padding, which reduces 32x32 images to a single position.

    For CIFAR-10 and ImageNet (SG Table 7). Batch normalization follows the activation, as in the table. The default
    channels are those of the encoder of World Models (Ha and Schmidhuber 2018), which also has four 4x4 convolutions.
    """

    name: Name = "strided"
    channels: FourWidths = (32, 64, 128, 256)
    packs_on_cpu: ClassVar[bool] = False

    def build(self, image_shape: ImageShape, features: int) -> nn.Module:
        """Builds the module (`Encoder.build`).

        Raises:
            ValueError: height or width is not a multiple of 8, or is below 32.
        """
        height, width = _innermost(image_shape)
        layers: list[nn.Module] = []
        for index, (n_in, n_out) in enumerate(pairwise((image_shape[0], *self.channels))):
            stride, padding = (2, 1) if index < 3 else (1, 0)
            layers += [nn.Conv2d(n_in, n_out, 4, stride, padding), nn.ReLU(), BatchNorm(n_out)]
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(self.channels[-1] * height * width, features))


@registered(DECODERS)
class StridedDecoder(Decoder):
    """The mirror image of `StridedEncoder`: a linear layer and four transposed convolutions (SG Table 8).

    Warning: with batch normalization, an image's loss depends on all codes of the batch. Estimators that decode codes
    which were not drawn (`exact`, `indecater`) include them in the statistics.
    """

    name: Name = "strided"
    channels: FourWidths = (256, 128, 64, 32)
    packs_on_cpu: ClassVar[bool] = False
    batch_normalized: ClassVar[bool] = True

    def build(self, features: int, image_shape: ImageShape, outputs: int) -> nn.Module:
        """Builds the module (`Decoder.build`).

        Raises:
            ValueError: height or width is not a multiple of 8, or is below 32.
        """
        shape = (self.channels[0], *_innermost(image_shape))
        layers: list[nn.Module] = [nn.Linear(features, math.prod(shape)), nn.Unflatten(1, shape)]
        for index, (n_in, n_out) in enumerate(pairwise(self.channels)):
            stride, padding = (1, 0) if index == 0 else (2, 1)
            layers += [nn.ConvTranspose2d(n_in, n_out, 4, stride, padding), nn.ReLU(), BatchNorm(n_out)]
        layers.append(unit_scale(nn.ConvTranspose2d(self.channels[-1], outputs * image_shape[0], 4, 2, 1), outputs))
        return nn.Sequential(*layers, *by_output(outputs, image_shape))


def by_output(outputs: int, image_shape: ImageShape) -> tuple[nn.Module, nn.Module]:
    """The last layers of a convolutional decoder, [N, outputs*C, H, W] -> [N, outputs, C*H*W]."""
    return nn.Flatten(), nn.Unflatten(1, (outputs, math.prod(image_shape)))


def _innermost(image_shape: ImageShape) -> tuple[int, int]:
    """Height and width after three halvings and a 4x4 convolution without padding."""
    _, height, width = image_shape
    if height % 8 or width % 8 or min(height, width) < 32:
        raise ValueError(
            f"strided networks need height and width that are multiples of 8 and at least 32, got {height} x {width}"
        )
    return height // 8 - 3, width // 8 - 3
