"""Batch normalization (Ioffe and Szegedy 2015) that can be stacked and frozen.

Shapes. N images, C channels, H x W positions.
"""

import torch
from torch import Tensor, nn

from trainables.shards import ALONE, Shards

MOMENTUM = 0.1
EPSILON = 1e-5


class BatchNorm(nn.Module):
    """`torch.nn.BatchNorm2d` for a cohort: each member has its own statistics, which can be frozen.

    In training it normalizes with the mean and variance of the batch, and moves the running statistics towards them, in
    place, by a tenth. In evaluation it uses the running statistics and changes nothing. While the buffer `frozen` is
    true, training does the same as evaluation. `frozen` is a tensor, because members of a cohort freeze in different
    epochs: under `torch.func.vmap` each member has its own value. `shards` are the processes that share a batch; its
    statistics are over all of them.
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
            ValueError: one value per channel in training, which has no variance; not checked with several processes.
        """
        x = x.to(self.weight.dtype)  # layers may compute in a lower precision, but statistics must not
        if not self.training:
            return self._scaled(x - _by_channel(self.running_mean), self.running_var)
        n = self._values(x)
        mean = self.shards.total(x.sum((0, 2, 3))) / n
        # Chosen before the running statistics change; `where` makes a copy.
        centred = x - _by_channel(torch.where(self.frozen, self.running_mean, mean))
        # The batch's variance; meaningless and unused for a frozen member.
        observed = self.shards.total(centred.square().sum((0, 2, 3))) / n
        variance = torch.where(self.frozen, self.running_var, observed)
        with torch.no_grad():
            self._move(self.running_mean, mean)
            # As in PyTorch: the biased variance normalizes the batch, the running variance averages the unbiased one.
            self._move(self.running_var, observed * (n / (n - 1)))
        return self._scaled(centred, variance)

    def _values(self, x: Tensor) -> int | Tensor:
        """The number of values per channel in the batch; a tensor if several processes share the batch."""
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
    """[C] -> [C, 1, 1], to broadcast over images."""
    return values[:, None, None]
