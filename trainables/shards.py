"""Data-parallel training: the processes of a group train the same members, each on its share of every batch.

Every process knows the seeds, draws the noise of a whole batch and takes its rows of it. What is summed over the images
of a batch (losses, gradients, the statistics of batch normalization) is then summed over the processes, so that all of
them hold the same numbers: those of one process alone, up to the order of summation.

The group is the default one of `torch.distributed`, which Ray Train has set up in each worker.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch.distributed as dist
from torch import Tensor
from torch.autograd import Function

T = TypeVar("T")


@dataclass(frozen=True)
class Shards:
    """One process of a group of `count`.

    All processes must call `total` and `from_first` in the same order.
    """

    rank: int = 0
    count: int = 1

    def of(self, rows: int) -> slice:
        """The rows of a batch that are this process's; shares differ by at most one row, and may be empty."""
        return slice(rows * self.rank // self.count, rows * (self.rank + 1) // self.count)

    def total(self, value: Tensor) -> Tensor:
        """The sum over processes; gradients flow back to all of them."""
        return value if self.count == 1 else _Total.apply(value)  # pyright: ignore[reportReturnType]

    def from_first(self, function: Callable[[], T]) -> T:
        """What the first process gets from calling `function`, which the others do not call.

        Raises:
            Exception: whatever the first process got, in all of them.
        """
        if self.count == 1:
            return function()
        told: list[Any] = [None, None]
        if self.rank == 0:
            try:
                told[0] = function()
            except Exception as error:
                told[1] = error
        dist.broadcast_object_list(told, src=0)
        if told[1] is not None:
            raise told[1]
        return told[0]


ALONE = Shards()


class _Total(Function):
    """Sums forward. Backward as well: every process's loss depends on what each of them put in."""

    @staticmethod
    def forward(value: Tensor) -> Tensor:
        total = value.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return _Total.apply(gradients[0])
