"""Pixels as the members see them, for each kind of input."""

import pytest
import torch

from trainables.pixels import observed
from trainables.streams import Purpose, Streams

LEVELS = (0, 51, 128, 255)
N = 40_000


def seen(kind):
    """The inputs [N] for many pixels of each level."""
    images = torch.tensor(LEVELS, dtype=torch.uint8)[None, None, :, None, None].expand(1, N, -1, 1, 1)
    streams = Streams([5], dtype=torch.float64)
    x = observed(kind, images, streams, Purpose.PIXELS, epoch=1, step=2)
    assert x.shape == images.shape
    return {level: x[0, :, i, 0, 0] for i, level in enumerate(LEVELS)}


def test_unit_pixels_are_shares_of_255():
    assert {level: set(x.tolist()) for level, x in seen("unit").items()} == {n: {n / 255} for n in LEVELS}


def test_dequantized_pixels_fill_their_bin_of_256():
    for level, x in seen("dequantize").items():
        inside = 256 * x - level
        assert 0 <= inside.min() < 1e-3
        assert 1 - 1e-3 < inside.max() < 1
        assert inside.mean().item() == pytest.approx(0.5, abs=5 / (12 * N) ** 0.5)


@pytest.mark.parametrize("level", LEVELS)
def test_binarized_pixels_are_1_with_probability_x_over_255(level):
    x, p = seen("binarize")[level], level / 255
    limit = 5 * (p * (1 - p) / N) ** 0.5
    assert set(x.tolist()) <= {0.0, 1.0}
    assert x.mean().item() == pytest.approx(p, rel=0, abs=limit)
    assert limit < 0.05 * max(p, 1 - p)  # a wrong scale would be seen
