"""Convolutions of M members, layer by layer: grouped, as `vmap` makes them, against what else there is.

    python benchmarks/convolutions.py --threads 1 --json convolutions.json

Forward and backward, in milliseconds a member, for the layers of the papers' networks. Every way computes the same
numbers. What is aimed at: 1.3 times as fast as one after the other for a whole step. See benchmarks/README.md.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from measuring import Report, machine, seconds, show, write
from torch import Tensor
from torch.func import vmap
from torch.nn import functional as F


class Layer(NamedTuple):
    """A convolution of square images: n_in channels of size x size to n_out, transposed or not."""

    batch: int
    n_in: int
    size: int
    n_out: int
    kernel: int
    stride: int
    padding: int
    transposed: bool = False

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor, groups: int = 1) -> Tensor:
        """Of one member, or of a group of channels for each."""
        convolve = F.conv_transpose2d if self.transposed else F.conv2d
        return convolve(x, weight, bias, self.stride, self.padding, groups=groups)

    def arguments(self, members: int, *, channels_last: bool = False) -> list[Tensor]:
        """Images [M, B, n_in, size, size], weights and biases [M, n_out].

        Weights are [M, n_out, n_in, kernel, kernel], or if transposed [M, n_in, n_out, kernel, kernel].
        """
        generator = torch.Generator().manual_seed(0)
        channels = (self.n_in, self.n_out) if self.transposed else (self.n_out, self.n_in)
        images, weights = (self.batch, self.n_in, self.size, self.size), (*channels, self.kernel, self.kernel)
        drawn = [torch.randn(members, *shape, generator=generator) for shape in (images, weights, (self.n_out,))]
        return [x.movedim(2, -1).contiguous().movedim(-1, 2) if channels_last and x.dim() == 5 else x for x in drawn]


LAYERS = {
    "conv3, conv5: 1 to 32, 3x3, 28x28": Layer(64, 1, 28, 32, 3, 1, 1),
    "conv3, conv5: 32 to 32, 3x3, 28x28": Layer(64, 32, 28, 32, 3, 1, 1),
    "conv5: 32 to 2, 1x1, 28x28": Layer(64, 32, 28, 2, 1, 1, 0),
    "strided: 3 to 32, 4x4/2, 32x32": Layer(100, 3, 32, 32, 4, 2, 1),
    "strided: 32 to 64, 4x4/2, 16x16": Layer(100, 32, 16, 64, 4, 2, 1),
    "strided: 64 to 128, 4x4/2, 8x8": Layer(100, 64, 8, 128, 4, 2, 1),
    "strided: 128 to 256, 4x4, 4x4": Layer(100, 128, 4, 256, 4, 1, 0),
    "strided: 256 to 128, 4x4 transposed, 1x1": Layer(100, 256, 1, 128, 4, 1, 0, True),
    "strided: 128 to 64, 4x4/2 transposed, 4x4": Layer(100, 128, 4, 64, 4, 2, 1, True),
    "strided: 64 to 32, 4x4/2 transposed, 8x8": Layer(100, 64, 8, 32, 4, 2, 1, True),
    "strided: 32 to 6, 4x4/2 transposed, 16x16": Layer(100, 32, 16, 6, 4, 2, 1, True),
    "residual: 64 to 64, 4x4/2, 16x16": Layer(64, 64, 16, 64, 4, 2, 1),
    "residual: 64 to 64, 3x3, 8x8": Layer(64, 64, 8, 64, 3, 1, 1),
    "residual: 64 to 64, 1x1, 8x8": Layer(64, 64, 8, 64, 1, 1, 0),
}
"""Of SG Tables 5 to 8 and of the binary autoencoder, in the networks' default widths."""


def in_turn(layer: Layer, x: Tensor, weight: Tensor, bias: Tensor) -> list[Tensor]:
    """One member after the other."""
    return [layer(*one) for one in zip(x, weight, bias, strict=True)]


def grouped(layer: Layer, x: Tensor, weight: Tensor, bias: Tensor) -> list[Tensor]:
    """One convolution in which each member is a group of channels."""
    return [vmap(layer)(x, weight, bias)]


def batched_gemm(layer: Layer, x: Tensor, weight: Tensor, bias: Tensor) -> list[Tensor]:
    """A batched matrix product of the weights with the images' windows, laid out as columns."""
    m, b = x.shape[:2]
    window = {"kernel_size": layer.kernel, "padding": layer.padding, "stride": layer.stride}
    if layer.transposed:
        pixels = x.transpose(1, 2).flatten(2)  # [M, n_in, B * positions]
        columns = torch.bmm(weight.flatten(2).transpose(1, 2), pixels).unflatten(2, (b, -1))
        size = (layer.size - 1) * layer.stride - 2 * layer.padding + layer.kernel
        y = F.fold(columns.transpose(1, 2).flatten(0, 1), (size, size), **window).unflatten(0, (m, b))
        return [y + bias[:, None, :, None, None]]
    columns = F.unfold(x.flatten(0, 1), **window).unflatten(0, (m, b)).transpose(1, 2).flatten(2)
    y = torch.baddbmm(bias[:, :, None], weight.flatten(2), columns).unflatten(2, (b, -1)).transpose(1, 2)
    size = (layer.size + 2 * layer.padding - layer.kernel) // layer.stride + 1
    return [y.unflatten(3, (size, size))]


WAYS: dict[str, tuple[Callable[[Layer, Tensor, Tensor, Tensor], list[Tensor]], bool]] = {
    "in_turn": (in_turn, False),
    "in_turn_channels_last": (in_turn, True),
    "grouped": (grouped, False),
    "grouped_channels_last": (grouped, True),
    "batched_gemm": (batched_gemm, False),
}
"""By name: a function from `Layer.arguments` to all members' outputs; whether channels are the last axis in memory."""


def check(layer: Layer) -> None:
    """Raises AssertionError where two ways give other numbers."""
    few = layer._replace(batch=2)
    want = torch.stack(in_turn(few, *(one.double() for one in few.arguments(3))))
    for function, channels_last in WAYS.values():
        outputs = function(few, *(one.double() for one in few.arguments(3, channels_last=channels_last)))
        torch.testing.assert_close(torch.stack(outputs) if len(outputs) > 1 else outputs[0], want)


def milliseconds(way: str, layer: Layer, members: int, rounds: int, device: torch.device) -> float:
    """The shortest of some rounds, a member; the first one is not counted."""
    function, channels_last = WAYS[way]
    arguments = [one.to(device).requires_grad_() for one in layer.arguments(members, channels_last=channels_last)]

    def step() -> None:
        outputs = function(layer, *arguments)
        torch.autograd.grad(outputs, arguments, [torch.ones_like(y) for y in outputs])

    step()
    return min(seconds(step, device) for _ in range(rounds)) * 1e3 / members


def main() -> None:
    """Measures, prints, and writes what it was asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", default="", help="only those whose name begins so")
    parser.add_argument("--members", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path, metavar="FILE", help="write machine and rows there too")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    report: Report = {"machine": machine(device), "rows": []}
    show(report["machine"])
    for name, layer in LAYERS.items():
        if not name.startswith(args.layers):
            continue
        check(layer)
        for members in args.members:
            times = {way: milliseconds(way, layer, members, args.rounds, device) for way in WAYS}
            print(f"{name:<42} M={members:<3}" + "".join(f" {way} {ms:.2f}" for way, ms in times.items()), flush=True)
            report["rows"].append({"layer": name, "members": members} | times)
    write(args.json, report)


if __name__ == "__main__":
    main()
