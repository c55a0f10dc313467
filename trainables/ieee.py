"""Full precision for float32 arithmetic.

By default, PyTorch lets cuDNN compute convolutions of float32 tensors in tf32, with mantissas of 10 bits instead of 23.
Matrix products have full precision by default, but a setting can lower it, on a CPU down to bf16.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.backends import cudnn


@contextmanager
def ieee_float32() -> Iterator[None]:
    """Computes convolutions and matrix products of float32 tensors in IEEE float32; also works as a decorator.

    PyTorch has these settings per process. They are restored at the end.
    """
    convolutions, products = cudnn.allow_tf32, torch.get_float32_matmul_precision()
    cudnn.allow_tf32 = False
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        cudnn.allow_tf32 = convolutions
        torch.set_float32_matmul_precision(products)
