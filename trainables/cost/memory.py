"""Estimates how many members fit into memory together: a probe trains cohorts of one and of two members for a step.

A cohort's memory has a fixed part and a part that each member adds. On a GPU the allocator reports the peak; on a CPU
the probe counts the bytes of all tensors, so other programs on the machine do not matter.
"""

import gc
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import psutil
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from trainables.config import TrainingConfig
from trainables.data import Images
from trainables.data.sizes import Size
from trainables.packing.cohort import EVALUATION_BATCH, Cohort

USABLE = 0.8
"""The usable share of free memory: allocators leave gaps, and other programs need some memory too."""
ORDER_BYTES = 96
"""Bytes for each image and member while an epoch's order of the images is drawn."""


@dataclass(frozen=True)
class Footprint:
    """Bytes that a cohort of M members needs: fixed + M * member."""

    fixed: int
    member: int

    def largest(self, free: int) -> int:
        """The most members that fit into `free` bytes; at least 1, even if one does not fit."""
        return max(1, int((USABLE * free - self.fixed) // self.member))


def footprint(config: TrainingConfig, size: Size, device: torch.device, **options: Any) -> Footprint:
    """Measures cohorts of one and of two members on random images.

    Args:
        config: of one member; the other differs only in its seed.
        size: of the data set.
        device: where to train.
        options: further arguments of `Cohort`.
    """
    one, two = (_peak(config, size, members, device, options) for members in (1, 2))
    member = max(1, two - one) + ORDER_BYTES * size.train
    images = (size.train + size.validation) * int(np.prod(size.image_shape))
    return Footprint(fixed=max(0, 2 * one - two) + images, member=member)


def free_bytes(device: torch.device) -> int:
    """The free memory of a device, in bytes."""
    if device.type != "cuda":
        return psutil.virtual_memory().available
    gc.collect()
    torch.cuda.empty_cache()  # else memory that this process cached would count as used
    return torch.cuda.mem_get_info(device)[0]


def _peak(config: TrainingConfig, size: Size, members: int, device: torch.device, options: dict[str, Any]) -> int:
    """The most bytes in use while a cohort is built, trained for one step and evaluated on one batch."""

    def run() -> None:
        seeds = [config.model_copy(update={"seed": seed}) for seed in range(members)]
        shape = size.image_shape
        train = np.zeros((min(config.batch_size, size.train), *shape), dtype=np.uint8)
        validation = np.zeros((min(EVALUATION_BATCH, size.validation), *shape), dtype=np.uint8)
        Cohort(seeds, Images(train, validation), device=device, **options).train_epoch()

    return _allocated(run, device) if device.type == "cuda" else _followed(run)


def _allocated(run: Callable[[], None], device: torch.device) -> int:
    """The peak of `run` in bytes, from PyTorch's CUDA allocator."""
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    run()
    return torch.cuda.max_memory_allocated(device) - before


def _followed(run: Callable[[], None]) -> int:
    """The peak of `run` in bytes, from the storages of all tensors that its operations return."""
    with Live() as live:
        run()
    return live.peak


class Live(TorchDispatchMode):
    """Counts the bytes of living tensors and keeps the peak."""

    def __init__(self):
        super().__init__()
        self.peak = self._bytes = 0
        self._known: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._follow(leaf.untyped_storage())
        return result

    def _follow(self, storage: torch.UntypedStorage) -> None:
        if storage not in self._known:
            self._known.add(storage)
            self._bytes += storage.nbytes()
            self.peak = max(self.peak, self._bytes)
            weakref.finalize(storage, self._forget, storage.nbytes())

    def _forget(self, count: int) -> None:
        self._bytes -= count
