"""Counter-based random numbers: one independent stream per member and purpose, the same on every device.

Shapes. M members; n numbers a member.

A number is a pure function of (seed, purpose, epoch, step, index): the Philox4x32-10 block cipher of Salmon et al.,
"Parallel random numbers: as easy as 1, 2, 3" (SC 2011), keyed by the member's seed. There is no state to save, a
member draws the same numbers alone or packed and in any position, and members that differ only in their estimator or
learning rate share initial weights, image order and noise, so that comparisons between them are paired.
"""

import math
from enum import IntEnum

import torch
from torch import Tensor

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_MASK = 0xFFFFFFFF
_ROUNDS = 10


class Purpose(IntEnum):
    """What a random number is for. Values are part of the training semantics: never renumber them."""

    ORDER = 1
    PIXELS = 2
    LATENT = 3
    EVALUATION_PIXELS = 4
    EVALUATION_LATENT = 5
    DIAGNOSTIC = 6


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
    """Philox4x32-10. Counter and key words are int64 tensors holding values in [0, 2^32), broadcast together."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        # The 64-bit products wrap into int64; the masks recover their unsigned halves.
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = ((p1 >> 32) & _MASK) ^ c1 ^ k0, p1 & _MASK, ((p0 >> 32) & _MASK) ^ c3 ^ k1, p0 & _MASK
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return c0, c1, c2, c3


class Streams:
    """The random streams of M members, keyed by their seeds.

    Args:
        seeds: M integers in [0, 2^63).
        device: where the numbers are made.
        dtype: of the numbers returned; their values do not depend on it.
    """

    def __init__(self, seeds: list[int], *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32):
        key = torch.tensor(seeds, dtype=torch.int64, device=device)[:, None]
        self._key = (key & _MASK, key >> 32)
        self._dtype = dtype

    def _words(self, n: int, purpose: Purpose, epoch: int, step: int) -> Tensor:
        """[M, n] int64 holding uniform 32-bit words."""
        blocks = torch.arange(math.ceil(n / 4), device=self._key[0].device)[None]
        step_, epoch_, purpose_ = (torch.full_like(blocks, value) for value in (step, epoch, int(purpose)))
        words = philox((blocks, step_, epoch_, purpose_), self._key)
        return torch.stack(words, dim=-1).flatten(1)[:, :n]

    def uniform(self, shape: tuple[int, ...], purpose: Purpose, *, epoch: int, step: int) -> Tensor:
        """[M, *shape] uniform in the open interval (0, 1), with 23 bits, so that float32 holds them exactly."""
        words = self._words(math.prod(shape), purpose, epoch, step)
        return ((words >> 9).to(self._dtype) + 0.5).mul_(2.0**-23).unflatten(1, shape)

    def uniform_coarse(self, shape: tuple[int, ...], purpose: Purpose, *, epoch: int, step: int) -> Tensor:
        """[M, *shape] uniform in (0, 1) with 16 bits, at half the cost.

        Enough within a pixel's bin: 2^-16 of a bin of width 2^-8 is the spacing of float32 just below 1.
        """
        n = math.prod(shape)
        words = self._words(math.ceil(n / 2), purpose, epoch, step)
        halves = torch.stack((words & 0xFFFF, words >> 16), dim=-1).flatten(1)[:, :n]
        return (halves.to(self._dtype) + 0.5).mul_(2.0**-16).unflatten(1, shape)

    def normal(self, shape: tuple[int, ...], purpose: Purpose, *, epoch: int, step: int) -> Tensor:
        """[M, *shape] standard normal, by Box and Muller."""
        n = math.prod(shape)
        pairs = self.uniform((2, math.ceil(n / 2)), purpose, epoch=epoch, step=step)
        radius, angle = (-2 * pairs[:, 0].log()).sqrt(), 2 * math.pi * pairs[:, 1]
        return torch.cat((radius * angle.cos(), radius * angle.sin()), dim=1)[:, :n].unflatten(1, shape)

    def logistic(self, shape: tuple[int, ...], purpose: Purpose, *, epoch: int, step: int) -> Tensor:
        """[M, *shape] standard logistic."""
        return torch.logit(self.uniform(shape, purpose, epoch=epoch, step=step))

    def gumbel(self, shape: tuple[int, ...], purpose: Purpose, *, epoch: int, step: int) -> Tensor:
        """[M, *shape] standard Gumbel."""
        return -(-self.uniform(shape, purpose, epoch=epoch, step=step).log()).log()

    def permutation(self, n: int, purpose: Purpose, *, epoch: int) -> Tensor:
        """[M, n] int64: each member's own order of n images in an epoch."""
        # 52 random bits: ties, which would be resolved by position, have probability 1e-10 for 1,000 images.
        words = self._words(2 * n, purpose, epoch, 0)
        return torch.argsort((words[:, :n] << 20) ^ words[:, n:], dim=1, stable=True)
