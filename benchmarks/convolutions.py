"""Compares ways to compute the convolutions of several members, layer by layer.

    python benchmarks/convolutions.py --threads 1 --json convolutions.json

The ways: one member after the other, one grouped convolution (as `vmap` makes it), both also with channels last in
memory, and a batched matrix product. All give the same numbers, which is checked first. The layers are those of the
papers' networks. Takes about three minutes on one core.

Prints for each layer, number of members and way: milliseconds of forward and backward a member, and how many times as
fast as one after the other (the ways take turns; median of the rounds). The aim was 1.3 times for a whole step.
"""

import statistics
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from measuring import begin, parser, seconds, write
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
        """The output for one member's images, or for several members' with the channels of each as a group."""
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
"""The layers of SG Tables 5 to 8 and of the binary autoencoder, in the networks' default widths."""


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
"""Name to a function from `Layer.arguments` to all members' outputs, and whether channels are last in memory."""


def check(layer: Layer) -> None:
    """Raises AssertionError if two ways give different numbers."""
    few = layer._replace(batch=2)
    want = torch.stack(in_turn(few, *(one.double() for one in few.arguments(3))))
    for function, channels_last in WAYS.values():
        outputs = function(few, *(one.double() for one in few.arguments(3, channels_last=channels_last)))
        torch.testing.assert_close(torch.stack(outputs) if len(outputs) > 1 else outputs[0], want)


def step_of(way: str, layer: Layer, members: int, device: torch.device) -> Callable[[], None]:
    """Forward and backward of a layer for all members."""
    function, channels_last = WAYS[way]
    arguments = [one.to(device).requires_grad_() for one in layer.arguments(members, channels_last=channels_last)]

    def step() -> None:
        outputs = function(layer, *arguments)
        torch.autograd.grad(outputs, arguments, [torch.ones_like(y) for y in outputs])

    return step


def rows(name: str, members: int, rounds: int, device: torch.device) -> list[dict[str, Any]]:
    """The measurements of a layer: a row for each way. The first round is not counted."""
    steps = {way: step_of(way, LAYERS[name], members, device) for way in WAYS}
    times = [{way: seconds(step, device) for way, step in steps.items()} for _ in range(rounds + 1)][1:]
    return [
        {
            "layer": name,
            "members": members,
            "way": way,
            "member_ms": min(one[way] for one in times) * 1e3 / members,
            "ratio": statistics.median(one["in_turn"] / one[way] for one in times),
        }
        for way in WAYS
    ]


def main() -> None:
    """Measures, prints and writes."""
    arguments = parser(__doc__)
    arguments.add_argument("--layers", default="", metavar="PREFIX", help="only layers with names that begin with this")
    arguments.add_argument("--members", type=int, nargs="+", default=[1, 4, 16], metavar="M")
    arguments.add_argument("--rounds", type=int, default=4, help="of each way")
    args = arguments.parse_args()
    device, report = begin(args)
    for name, layer in LAYERS.items():
        if not name.startswith(args.layers):
            continue
        check(layer)
        for members in args.members:
            for row in rows(name, members, args.rounds, device):
                measured = f"{row['member_ms']:8.2f} ms a member {row['ratio']:6.2f} x as fast as in turn"
                print(f"{name:<42} M={members:<3} {row['way']:<22}{measured}", flush=True)
                report["rows"].append(row)
    write(args.json, report)


if __name__ == "__main__":
    main()
