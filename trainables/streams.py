"""Counter-based random numbers: one independent stream per member and purpose, the same on every device.

Shapes. M members; n numbers per member.

A number is a pure function of (seed, purpose, epoch, step, index): the Philox4x32-10 block cipher of Salmon et al.,
"Parallel random numbers: as easy as 1, 2, 3" (SC 2011), with the member's seed as its key. There is no state to save. A
member draws the same numbers alone or packed, in any position. Members that differ only in their estimator or learning
rate have the same initial weights, image order and noise, so comparisons between them are paired.
"""

import math
from enum import IntEnum

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF
_ROUNDS = 10
Number = int | Tensor


class Purpose(IntEnum):
    """The use of a random number. Values are part of the training semantics: never renumber them."""

    ORDER = 1
    PIXELS = 2
    LATENT = 3
    EVALUATION_PIXELS = 4
    EVALUATION_LATENT = 5
    DIAGNOSTIC = 6


def philox(counter: Tensor, key: Tensor) -> Tensor:
    """Philox4x32-10 of 128-bit counters under 64-bit keys, as int64 tensors of 32-bit words.

    Args:
        counter: [4, M, n] words in [0, 2^32), or broadcastable to it.
        key: [2, M, n] words, or broadcastable to it.

    Returns:
        [4, M, n] words.
    """
    multipliers, weyl = _constants(counter.device)
    even, odd = counter[::2], counter[1::2]
    for round_key in (key + weyl) & _MASK:
        # Words 0 and 2 are multiplied and swapped. The 64-bit products wrap around in int64; the masks undo that.
        product = (even * multipliers).flip(0)
        even = (product >> 32).bitwise_and_(_MASK).bitwise_xor_(odd) ^ round_key
        odd = product.bitwise_and_(_MASK)
    return torch.stack((even, odd), dim=1).flatten(0, 1)


def _constants(device: torch.device) -> tuple[Tensor, Tensor]:
    """The multipliers [2, 1, 1] of words 0 and 2, and the increment [10, 2, 1, 1] of the key in each round.

    They are computed on the device, since a CUDA graph cannot capture a copy from the host.
    """
    first = torch.arange(2, device=device)
    multipliers = first * (0xCD9E8D57 - 0xD2511F53) + 0xD2511F53
    weyl = first * (0xBB67AE85 - 0x9E3779B9) + 0x9E3779B9
    return multipliers[:, None, None], (torch.arange(_ROUNDS, device=device)[:, None] * weyl)[..., None, None]


class Streams:
    """The random streams of M members, keyed by their seeds.

    Epochs and steps are integers, or int64 tensors [1].

    Args:
        seeds: M integers in [0, 2^63), or the `keys` of another `Streams`.
        device: where the numbers are computed; ignored with `keys`, which have a device.
        dtype: of the numbers returned, float32 or float64. Uniform numbers are equal in both; normal, logistic and
            Gumbel numbers agree up to rounding.
    """

    def __init__(
        self, seeds: list[int] | Tensor, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ):
        if not isinstance(seeds, Tensor):
            words = torch.tensor(seeds, dtype=torch.int64, device=device)[:, None]
            seeds = torch.stack((words & _MASK, words >> 32))
        self.keys = seeds
        """int64 [2, M, 1]: the low and the high word of each seed."""
        self.dtype = dtype

    def _words(self, n: int, purpose: Purpose, epoch: Number, step: Number) -> Tensor:
        """Uniform 32-bit words, int64 [M, n]."""
        blocks = torch.arange(math.ceil(n / 4), device=self.keys.device)
        zeros = torch.zeros_like(blocks)
        counter = torch.stack((blocks, zeros + step, zeros + epoch, zeros + int(purpose)))
        return philox(counter[:, None], self.keys).movedim(0, -1).flatten(1)[:, :n]

    def uniform(self, shape: tuple[int, ...], purpose: Purpose, *, epoch: Number, step: Number) -> Tensor:
        """Uniform numbers [M, *shape] in the open interval (0, 1), with 23 bits, so they are exact in float32."""
        words = self._words(math.prod(shape), purpose, epoch, step)
        return ((words >> 9).to(self.dtype) + 0.5).mul_(2.0**-23).unflatten(1, shape)

    def uniform_coarse(self, shape: tuple[int, ...], purpose: Purpose, *, epoch: Number, step: Number) -> Tensor:
        """Uniform numbers [M, *shape] in the half-open interval [0, 1), with 16 bits, at half the cost.

        They are precise enough for dequantization: a level of 0..255 plus such a number is exact in float32, and never
        rounds to the next level.
        """
        n = math.prod(shape)
        words = self._words(math.ceil(n / 2), purpose, epoch, step)
        halves = torch.stack((words & 0xFFFF, words >> 16), dim=-1).flatten(1)[:, :n]
        return halves.to(self.dtype).mul_(2.0**-16).unflatten(1, shape)

    def normal(self, shape: tuple[int, ...], purpose: Purpose, *, epoch: Number, step: Number) -> Tensor:
        """Standard normal numbers [M, *shape], by the Box-Muller method."""
        n = math.prod(shape)
        pairs = self.uniform((2, math.ceil(n / 2)), purpose, epoch=epoch, step=step)
        radius, angle = (-2 * pairs[:, 0].log()).sqrt(), 2 * math.pi * pairs[:, 1]
        return torch.cat((radius * angle.cos(), radius * angle.sin()), dim=1)[:, :n].unflatten(1, shape)

    def logistic(self, shape: tuple[int, ...], purpose: Purpose, *, epoch: Number, step: Number) -> Tensor:
        """Standard logistic numbers [M, *shape]."""
        return torch.logit(self.uniform(shape, purpose, epoch=epoch, step=step))

    def gumbel(self, shape: tuple[int, ...], purpose: Purpose, *, epoch: Number, step: Number) -> Tensor:
        """Standard Gumbel numbers [M, *shape]."""
        return -(-self.uniform(shape, purpose, epoch=epoch, step=step).log()).log()

    def permutation(self, n: int, purpose: Purpose, *, epoch: Number) -> Tensor:
        """Each member's order of n images in an epoch, int64 [M, n]."""
        # 52 random bits: a tie, resolved by position, has probability 1e-10 for 1,000 images.
        words = self._words(2 * n, purpose, epoch, 0)
        return torch.argsort((words[:, :n] << 20) ^ words[:, n:], dim=1, stable=True)
