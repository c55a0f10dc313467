"""Compiles a training step with TorchInductor, and on a GPU replays it as a CUDA graph.

`make_fx` records a function of tensors as a graph of operations, including gradients, `vmap` and casts. Inductor
compiles the graph. The process keeps the compiled program for every cohort with tensors of these shapes; Inductor keeps
its kernels on disk for later processes.
"""

import os
import shutil
import warnings
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import tree_flatten, tree_leaves

Function = Callable[..., None]
"""A function of (nested) tensors; it changes only its first argument's tensors in place."""

_programs: dict[Hashable, Function] = {}


def compiler_at_hand(device: torch.device) -> bool:
    """Whether Inductor can compile for a device: a CPU needs a C++ compiler; PyTorch for CUDA includes Triton."""
    return device.type != "cpu" or shutil.which(os.environ.get("CXX", "g++")) is not None


def compiled(function: Function, key: Hashable, *args: Any) -> Function:
    """`function` compiled for arguments of these shapes, dtypes and device.

    If the compiler fails, a warning gives the reason, and `function` is used as it is.

    Args:
        function: depends on no value of a tensor, and reads only the tensors of its arguments.
        key: names the function; a program compiled for an equal key and such arguments is used again.
        args: examples; nothing is computed with them.
    """
    leaves, structure = tree_flatten(args)
    shapes = [(leaf.shape, leaf.stride(), leaf.dtype, leaf.device) for leaf in leaves if isinstance(leaf, Tensor)]
    whole = (key, str(structure), tuple(shapes))
    if whole not in _programs:
        _programs[whole] = _compile(function, *args)
    return _programs[whole]


def _compile(function: Function, *args: Any) -> Function:
    from torch._dynamo.exc import BackendCompilerFailed  # a slow import, only for processes that compile

    graph = make_fx(function, tracing_mode="fake")(*args)
    # The shapes are in the key above. Dynamo's guards on every tensor would cost 0.1 ms a call.
    unguarded: dict[str, Any] = {"guard_filter_fn": torch.compiler.skip_all_guards_unsafe}
    program = torch.compile(graph, fullgraph=True, dynamic=False, options=unguarded)
    chosen: list[Function] = []

    def run(*args: Any) -> None:
        with torch.no_grad():
            if not chosen:
                try:
                    program(*args)
                except BackendCompilerFailed as error:  # raised before anything is computed
                    warnings.warn(f"not compiled: {error}".splitlines()[0], RuntimeWarning, stacklevel=2)
                    chosen.append(function)
                else:
                    chosen.append(program)
                    return
            chosen[0](*args)

    return run


def program(function: Function, key: Hashable, *args: Any) -> Callable[[], None]:
    """`function` compiled for fixed arguments, and on a GPU captured as a CUDA graph."""
    chosen = compiled(function, key, *args)
    on_gpu = any(isinstance(leaf, Tensor) and leaf.is_cuda for leaf in tree_leaves(args))
    return Replayed(chosen, *args) if on_gpu else partial(chosen, *args)


class Replayed:
    """A function of fixed tensors, captured as a CUDA graph: one launch for all its kernels.

    Args:
        function: the function to capture; the tensors of its first argument are restored after the capture.
        args: the tensors that every replay reads and changes; their addresses must not change.
    """

    def __init__(self, function: Function, *args: Any):
        tensors = [leaf for leaf in tree_leaves(args[0]) if isinstance(leaf, Tensor)]
        before = [tensor.clone() for tensor in tensors]
        # A capture must be preceded by warm-up calls on a side stream: they compile kernels and initialize libraries.
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                function(*args)
        torch.cuda.current_stream().wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            function(*args)
        for tensor, value in zip(tensors, before, strict=True):
            tensor.copy_(value)

    def __call__(self) -> None:
        self._graph.replay()
