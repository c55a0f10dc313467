"""float32 that means float32.

PyTorch lets cuDNN compute convolutions of float32 tensors in tf32, with mantissas of 10 bits in place of 23. Matrix
products it does not lower by itself, but can be told to, on a CPU as far as bf16.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.backends import cudnn


@contextmanager
def ieee_float32() -> Iterator[None]:
    """Convolutions and matrix products of float32 tensors are computed in IEEE float32 inside; usable as a decorator.

    The settings are those of the process, as both are in PyTorch, and are put back at the end.
    """
    convolutions, products = cudnn.allow_tf32, torch.get_float32_matmul_precision()
    cudnn.allow_tf32 = False
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        cudnn.allow_tf32 = convolutions
        torch.set_float32_matmul_precision(products)
