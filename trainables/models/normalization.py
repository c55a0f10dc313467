"""Batch normalization (Ioffe and Szegedy 2015) that can be stacked and frozen.

Shapes. N images, C channels, H x W positions.
"""

import torch
from torch import Tensor, nn

from trainables.shards import ALONE, Shards

MOMENTUM = 0.1
EPSILON = 1e-5


class BatchNorm(nn.Module):
    """`torch.nn.BatchNorm2d` whose statistics a cohort can hold for many members and stop for some of them.

    In training it normalizes with the mean and variance of the batch and moves the running ones towards them, in place,
    by a tenth; in evaluation it uses the running ones and moves nothing. While the buffer `frozen` is true, training
    does as evaluation does. `frozen` is a tensor, not an attribute, because members of one cohort freeze in different
    epochs: under `torch.func.vmap` each has its own value of it. `shards` says over which processes a batch is spread:
    its statistics are those of all of it.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.shards: Shards = ALONE
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.running_mean: Tensor
        self.running_var: Tensor
        self.frozen: Tensor
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.register_buffer("frozen", torch.zeros((), dtype=torch.bool))

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W].

        Raises:
            ValueError: training on a single value a channel, which has no variance.
        """
        x = x.to(self.weight.dtype)  # statistics are not kept in the lower precision that layers may compute in
        if not self.training:
            return self._scaled(x - _by_channel(self.running_mean), self.running_var)
        n = self._values(x)
        mean = self.shards.total(x.sum((0, 2, 3))) / n
        # What a frozen member normalizes with is chosen before any statistic moves; `where` makes a copy of it.
        centred = x - _by_channel(torch.where(self.frozen, self.running_mean, mean))
        # The batch's variance; of a frozen member nothing, and not used.
        observed = self.shards.total(centred.square().sum((0, 2, 3))) / n
        variance = torch.where(self.frozen, self.running_var, observed)
        with torch.no_grad():
            self._move(self.running_mean, mean)
            # The batch is normalized with its biased variance, but the running one averages the unbiased.
            self._move(self.running_var, observed * (n / (n - 1)))
        return self._scaled(centred, variance)

    def _values(self, x: Tensor) -> int | Tensor:
        """How many values each channel has in the batch; of one that is spread it is no number that Python knows."""
        own = x.shape[0] * x.shape[2] * x.shape[3]
        if self.shards.count > 1:
            return self.shards.total(x.new_full((), own))
        if own == 1:
            raise ValueError(f"batch normalization needs more than one value a channel, got images {tuple(x.shape)}")
        return own

    def _scaled(self, centred: Tensor, variance: Tensor) -> Tensor:
        return centred * _by_channel(self.weight * (variance + EPSILON).rsqrt()) + _by_channel(self.bias)

    def _move(self, running: Tensor, observed: Tensor) -> None:
        running.copy_(torch.where(self.frozen, running, running.lerp(observed, MOMENTUM)))


def _by_channel(values: Tensor) -> Tensor:
    """[C] -> [C, 1, 1], to go with images."""
    return values[:, None, None]
