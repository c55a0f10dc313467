"""Converts 8-bit images to a model's input, with new noise in each training epoch and fixed noise in evaluation."""

from typing import Literal

from torch import Tensor

from trainables.streams import Number, Purpose, Streams

PixelKind = Literal["dequantize", "unit", "binarize"]


def observed(
    kind: PixelKind, images: Tensor, streams: Streams, purpose: Purpose, *, epoch: Number, step: Number
) -> Tensor:
    """The input of M members for uint8 images [M, B, C, H, W], in the same shape and the dtype of their streams.

    "dequantize": (x + u) / 256 with u uniform in [0, 1) (SG C.1). "unit": x / 255, without noise (DST).
    "binarize": a Bernoulli draw with probability x / 255 (the discrete-VAE tutorial).
    """
    if kind == "unit":
        return images.to(streams.dtype) / 255
    noise = streams.uniform_coarse(tuple(images.shape[1:]), purpose, epoch=epoch, step=step)
    if kind == "dequantize":
        return (images + noise).mul_(1 / 256)
    return (noise < images.to(noise.dtype) / 255).to(noise.dtype)
