"""Compares cohorts of 1, 2, 4 … members, trained as one program, with one member that is not compiled.

    python benchmarks/packing.py --seconds 600 --json packing.json
    python benchmarks/packing.py --device cuda --models mlp-4x8 mlp-12x16

The models are the papers' networks, the images are random, and Ray is not involved. Takes `--seconds`, ten minutes by
default; a model's cohorts double until its share of the time is over, or the memory is full.

Prints for each cohort: members times steps a second, how many times that of the one member (both take turns; median
of the rounds), and the share of the floor. The floor is the shortest time that a step can take on this machine: its
matrix products at the highest rate measured, or its optimizer's memory traffic at the rate of a copy, whichever is
longer. The aim on a GPU is 50 times for perceptrons and 8 times for convolutions.
"""

import statistics
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from measuring import Report, begin, ceilings, parser, seconds, write
from torch.utils.flop_counter import FlopCounterMode

from trainables.config import TrainingConfig
from trainables.data import Images
from trainables.packing.cohort import Cohort

_CATEGORICAL = {
    "encoder": {"name": "mlp", "hidden": [512, 256]},
    "decoder": {"name": "mlp", "hidden": [256, 512]},
    "likelihood": {"name": "bernoulli"},
    "data": {"pixels": "unit"},
    "estimator": {"name": "decoupled_st_gs"},
    "optim": {"name": "radam", "lr": 1e-3},
    "batch_size": 100,
}
_DUAL = {
    "latent": {"family": "gaussian", "size": 200},
    "likelihood": {"name": "gaussian_log_scale"},
    "estimator": {"name": "reparameterization"},
    "guide": {"annealing_rate": 0.01},
    "optim": {"name": "adamw", "lr": 1e-4},
    "batch_size": 64,
}
MODELS: dict[str, tuple[dict[str, Any], tuple[int, int, int]]] = {
    "mlp-4x8": (_CATEGORICAL | {"latent": {"family": "categorical", "size": 4, "categories": 8}}, (1, 28, 28)),
    "mlp-12x16": (_CATEGORICAL | {"latent": {"family": "categorical", "size": 12, "categories": 16}}, (1, 28, 28)),
    "dual-mnist": (_DUAL | {"encoder": {"name": "conv3"}, "decoder": {"name": "conv5"}}, (1, 28, 28)),
    "conv-cifar10": (_DUAL | {"encoder": {"name": "strided"}, "decoder": {"name": "strided"}}, (3, 32, 32)),
    "binary-autoencoder": (
        {
            "latent": {"family": "bernoulli", "size": 2048},
            "encoder": {"name": "residual"},
            "decoder": {"name": "residual"},
            "likelihood": {"name": "gaussian_fixed"},
            "estimator": {"name": "straight_through"},
            "optim": {"name": "adam", "lr": 1e-3},
            "batch_size": 100,
        },
        (3, 32, 32),
    ),
}
"""Name to configuration and image shape: the networks of the papers."""

OPTIMIZER_BYTES = 28
"""Least memory traffic a parameter and step: in float32, itself and two moments read and written, its gradient read."""


def cohort(model: str, members: int, *, steps: int, precision: str, device: torch.device, compiled: bool) -> Cohort:
    """A cohort on as many random images as `steps` steps an epoch need."""
    settings, image_shape = MODELS[model]
    configs = [
        TrainingConfig.model_validate(settings | {"epochs": 100, "precision": precision, "seed": seed})
        for seed in range(members)
    ]
    n = configs[0].batch_size * steps
    pixels = np.random.default_rng(0).integers(0, 256, (n, *image_shape), dtype=np.uint8)
    images = Images(train=pixels, validation=pixels[:1])
    return Cohort(configs, images, device=device, compiled=compiled)


def floor_s(model: str, precision: str, device: torch.device, ceiling: dict[str, float]) -> float:
    """The shortest time in which one member's step can be computed, in seconds."""
    one = cohort(model, 1, steps=1, precision=precision, device=device, compiled=False)
    with FlopCounterMode(display=False) as counter:
        one.train_epoch()  # with an evaluation of one image
    moved = OPTIMIZER_BYTES * sum(group.flat.numel() for group in one.members.groups.values())
    return max(counter.get_total_flops() / ceiling[precision], moved / ceiling["copy"])


def rows(
    model: str, *, largest: int, steps: int, rounds: int, precision: str, device: torch.device, deadline: float
) -> Iterator[Report]:
    """The measurements of a model: one member that is not compiled, then compiled cohorts, until the deadline."""
    ceiling = ceilings(device)
    floor = floor_s(model, precision, device, ceiling)
    alone = cohort(model, 1, steps=steps, precision=precision, device=device, compiled=False)
    alone.train_epoch()
    members, compiled = 1, False
    while members <= largest:
        started = time.monotonic()
        try:
            training = cohort(model, members, steps=steps, precision=precision, device=device, compiled=compiled)
            training.train_epoch()  # compiles
            times = [(seconds(alone.train_epoch, device), seconds(training.train_epoch, device)) for _ in range(rounds)]
        except torch.OutOfMemoryError:
            return
        rate = members * steps / min(own for _, own in times)
        yield {
            "model": model,
            "precision": precision,
            "members": members,
            "compiled": compiled,
            "members_steps_per_s": rate,
            "ratio": statistics.median(members * one / own for one, own in times),
            "floor": floor * rate,
        }
        del training
        took = time.monotonic() - started
        if time.monotonic() + 2 * took > deadline:
            return
        members, compiled = (members, True) if not compiled else (2 * members, True)


def main() -> None:
    """Measures, prints and writes."""
    arguments = parser(__doc__)
    arguments.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS), metavar="MODEL")
    arguments.add_argument("--precision", nargs="+", default=["float32"], choices=["float32", "bf16"])
    arguments.add_argument("--largest", type=int, default=4096, help="members of the largest cohort tried")
    arguments.add_argument("--steps", type=int, default=20, help="steps of a round")
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--seconds", type=float, default=600, help="for all models together")
    args = arguments.parse_args()
    device, report = begin(args)
    report["ceilings"] = ceilings(device)
    print(", ".join(f"{name} {value / 1e9:.0f} G/s" for name, value in report["ceilings"].items()))
    cells = [(model, precision) for model in args.models for precision in args.precision]
    end = time.monotonic() + args.seconds
    for index, (model, precision) in enumerate(cells):
        deadline = time.monotonic() + (end - time.monotonic()) / (len(cells) - index)
        settings = {"largest": args.largest, "steps": args.steps, "rounds": args.rounds}
        for row in rows(model, precision=precision, device=device, deadline=deadline, **settings):
            how = "compiled" if row["compiled"] else "eager"
            print(
                f"{model:<19} {precision:<8} M={row['members']:<5} {how:<9}{row['members_steps_per_s']:10.1f} "
                f"member-steps/s  {row['ratio']:6.2f} x  {row['floor']:5.0%} of the floor",
                flush=True,
            )
            report["rows"].append(row)
    write(args.json, report)


if __name__ == "__main__":
    main()
