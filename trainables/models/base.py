"""What an encoder and a decoder must supply."""

from typing import Annotated, ClassVar, Literal

from torch import nn

from trainables.components import SHAPE, Component
from trainables.registry import Registry

ENCODERS: Registry["Encoder"] = Registry("encoder")
DECODERS: Registry["Decoder"] = Registry("decoder")

ImageShape = tuple[int, int, int]
Activation = Annotated[Literal["relu", "leaky_relu"], SHAPE]


class Encoder(Component):
    """Configuration of a network from images to the parameters of q(z|x)."""

    packs_on_cpu: ClassVar[bool] = True
    """Whether stacking members pays on a CPU: it does for dense layers, not for convolutions (docs/decisions.md)."""

    def build(self, image_shape: ImageShape, features: int) -> nn.Module:
        """A module [B, C, H, W] -> [B, features] with freshly drawn weights."""
        raise NotImplementedError


class Decoder(Component):
    """Configuration of a network from codes to the parameters of p(x|z)."""

    packs_on_cpu: ClassVar[bool] = True
    linear: ClassVar[bool] = False
    """Whether every output is a linear function of the code, so that expectations are analytic."""

    def build(self, features: int, image_shape: ImageShape, outputs: int) -> nn.Module:
        """A module [N, features] -> [N, outputs, C*H*W] with freshly drawn weights."""
        raise NotImplementedError


def activation(name: str) -> nn.Module:
    """The activation layer of that name."""
    return nn.ReLU() if name == "relu" else nn.LeakyReLU()
