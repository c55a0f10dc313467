"""Multilayer perceptrons: the 784-512-256 networks of DST A.2 and of the discrete-VAE tutorial."""

import math
from itertools import pairwise
from typing import Annotated

from torch import nn

from trainables.components import SHAPE, Count, Name, registered
from trainables.models.base import DECODERS, ENCODERS, Activation, Decoder, Encoder, ImageShape, activation, unit_scale

Widths = Annotated[tuple[Count, ...], SHAPE]


def _perceptron(widths: list[int], act: str) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(widths):
        layers += [nn.Linear(n_in, n_out), activation(act)]
    return layers[:-1]


@registered(ENCODERS)
class MLPEncoder(Encoder):
    """A perceptron from the flattened image to the features, with these hidden widths."""

    name: Name = "mlp"
    hidden: Widths = (512, 256)
    activation: Activation = "relu"

    def build(self, image_shape: ImageShape, features: int) -> nn.Module:
        widths = [math.prod(image_shape), *self.hidden, features]
        return nn.Sequential(nn.Flatten(), *_perceptron(widths, self.activation))


@registered(DECODERS)
class MLPDecoder(Decoder):
    """A perceptron from the code to every pixel, with these hidden widths."""

    name: Name = "mlp"
    hidden: Widths = (256, 512)
    activation: Activation = "relu"

    def build(self, features: int, image_shape: ImageShape, outputs: int) -> nn.Module:
        pixels = math.prod(image_shape)
        *layers, last = _perceptron([features, *self.hidden, outputs * pixels], self.activation)
        assert isinstance(last, nn.Linear)
        return nn.Sequential(*layers, unit_scale(last, outputs), nn.Unflatten(1, (outputs, pixels)))
