"""The convolutional networks of Silent Gradients."""

from typing import Annotated, ClassVar, Literal

from torch import nn

from trainables.components import SHAPE, PositiveShape, registered
from trainables.models.base import ENCODERS, Encoder, ImageShape


@registered(ENCODERS)
class Conv3Encoder(Encoder):
    """Three 3x3 convolutions at full resolution and a linear layer (SG Table 5; the paper leaves the channels open)."""

    name: Annotated[Literal["conv3"], SHAPE] = "conv3"
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
