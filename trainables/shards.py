"""Data-parallel training: the processes of a group train the same members, each on its share of every batch.

Every process knows the seeds, draws the noise of the whole batch and uses its own rows. Sums over the images of a batch
(losses, gradients, statistics of batch normalization) are then summed over the processes. So all processes have the
same numbers, which are those of a single process up to the order of summation.

The group is the default group of `torch.distributed`, which Ray Train sets up in each worker.
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
        """The rows of a batch for this process; shares differ by at most one row, and may be empty."""
        return slice(rows * self.rank // self.count, rows * (self.rank + 1) // self.count)

    def total(self, value: Tensor) -> Tensor:
        """The sum over processes; gradients flow back to all of them."""
        return value if self.count == 1 else _Total.apply(value)  # pyright: ignore[reportReturnType]

    def from_first(self, function: Callable[[], T]) -> T:
        """Calls `function` in the first process only, and returns its result in all processes.

        Raises:
            Exception: whatever `function` raised in the first process; it is raised in all processes.
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
    """The sum over processes, forward and backward: the loss of every process depends on the input of all."""

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
