"""What an encoder and a decoder must supply."""

from typing import Annotated, ClassVar, Literal, TypeVar

from torch import nn

from trainables.components import SHAPE, Component
from trainables.registry import Registry

ENCODERS: Registry["Encoder"] = Registry("encoder")
DECODERS: Registry["Decoder"] = Registry("decoder")

ImageShape = tuple[int, int, int]
Layer = TypeVar("Layer", nn.Linear, nn.Conv2d, nn.ConvTranspose2d)
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
    batch_normalized: ClassVar[bool] = False
    """Whether decoding moves statistics, so that it is no function of the code alone."""

    def build(self, features: int, image_shape: ImageShape, outputs: int) -> nn.Module:
        """A module [N, features] -> [N, outputs, C*H*W] with freshly drawn weights."""
        raise NotImplementedError


def unit_scale(last: Layer, outputs: int) -> Layer:
    """The last layer of a decoder; of two outputs the second, the logarithm of a scale, begins at 0 for every code.

    Left as PyTorch draws it, that of a network with batch normalization reaches -17 for some pixel of a batch, and the
    squared error over exp(2 * -17) is what the first steps train on (docs/decisions.md).
    """
    if outputs == 2:
        weight = last.weight.transpose(0, 1) if isinstance(last, nn.ConvTranspose2d) else last.weight
        assert last.bias is not None
        nn.init.zeros_(weight[len(weight) // 2 :])
        nn.init.zeros_(last.bias[len(weight) // 2 :])
    return last


def activation(name: str) -> nn.Module:
    """The activation layer of that name."""
    return nn.ReLU() if name == "relu" else nn.LeakyReLU()
