"""The contract of encoders and decoders."""

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
    """The configuration of a network from images to the parameters of q(z|x)."""

    packs_on_cpu: ClassVar[bool] = True
    """Whether packing pays on a CPU: it does for dense layers, but not for convolutions (docs/decisions.md)."""

    def build(self, image_shape: ImageShape, features: int) -> nn.Module:
        """A module [B, C, H, W] -> [B, features] with random initial weights."""
        raise NotImplementedError


class Decoder(Component):
    """The configuration of a network from codes to the parameters of p(x|z)."""

    packs_on_cpu: ClassVar[bool] = True
    linear: ClassVar[bool] = False
    """Whether every output is a linear function of the code, so that expectations are analytic."""
    batch_normalized: ClassVar[bool] = False
    """Whether the decoder has batch normalization, so that an output depends on the other codes of the batch."""

    def build(self, features: int, image_shape: ImageShape, outputs: int) -> nn.Module:
        """A module [N, features] -> [N, outputs, C*H*W] with random initial weights."""
        raise NotImplementedError


def unit_scale(last: Layer, outputs: int) -> Layer:
    """Initializes the last layer of a decoder: if it has two outputs, the second, a log-scale, is 0 for every code.

    With PyTorch's own initialization, a network with batch normalization gives a log-scale of -17 for some pixel of a
    batch. Its squared error, divided by exp(2 * -17), would dominate the first steps (docs/decisions.md).
    """
    if outputs == 2:
        weight = last.weight.transpose(0, 1) if isinstance(last, nn.ConvTranspose2d) else last.weight
        assert last.bias is not None
        nn.init.zeros_(weight[len(weight) // 2 :])
        nn.init.zeros_(last.bias[len(weight) // 2 :])
    return last


def activation(name: str) -> nn.Module:
    """The activation layer with this name."""
    return nn.ReLU() if name == "relu" else nn.LeakyReLU()
