"""Members times steps a second, for cohorts of 1, 2, 4 … members, against what the machine could do at most.

    python benchmarks/packing.py --seconds 600 --json packing.json
    python benchmarks/packing.py --device cuda --models mlp-4x8 mlp-12x16

Random images of the data sets' sizes, no Ray. The first row of a model is one member, eager: the others are told as
ratios to it. The floor of a step is the larger of its matrix products over the rate of large ones and of the bytes that
its optimizer must move over the rate of copies, both measured in the same run. Doubling ends where the time or the
memory does. See benchmarks/README.md.
"""

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import Report, ceilings, machine, seconds, show, write
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
"""The networks of the papers: configuration and image shape."""

OPTIMIZER_BYTES = 28
"""A parameter costs at least this a step in float32: itself and two moments read and written, its gradient read."""


def cohort(model: str, members: int, *, steps: int, precision: str, device: torch.device, compiled: bool) -> Cohort:
    """Members on just enough random images for `steps` steps an epoch."""
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
    """The least time of one member's step."""
    one = cohort(model, 1, steps=1, precision=precision, device=device, compiled=False)
    with FlopCounterMode(display=False) as counter:
        one.train_epoch()  # with an evaluation of one image
    moved = OPTIMIZER_BYTES * sum(group.flat.numel() for group in one.members.groups.values())
    return max(counter.get_total_flops() / ceiling[precision], moved / ceiling["copy"])


def step_s(training: Cohort, steps: int, device: torch.device, rounds: int) -> float:
    """The shortest of some epochs over its steps; the first one, which compiles, is not counted."""
    training.train_epoch()
    return min(seconds(training.train_epoch, device) for _ in range(rounds)) / steps


def rows(
    model: str, *, largest: int, steps: int, rounds: int, precision: str, device: torch.device, deadline: float
) -> Iterator[Report]:
    """A model's measurements: one member eager, then compiled cohorts, until the time is over."""
    ceiling = ceilings(device)
    floor = floor_s(model, precision, device, ceiling)
    baseline = 0.0
    members, compiled = 1, False
    while members <= largest:
        started = time.monotonic()
        try:
            training = cohort(model, members, steps=steps, precision=precision, device=device, compiled=compiled)
            rate = members / step_s(training, steps, device, rounds)
        except torch.OutOfMemoryError:
            return
        baseline = baseline or rate
        yield {
            "model": model,
            "precision": precision,
            "members": members,
            "compiled": compiled,
            "members_steps_per_s": rate,
            "ratio": rate / baseline,
            "floor": floor * rate,
        }
        del training
        took = time.monotonic() - started
        if time.monotonic() + 2 * took > deadline:
            return
        members, compiled = (members, True) if not compiled else (2 * members, True)


def main() -> None:
    """Measures, prints, and writes what it was asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS), metavar="MODEL")
    parser.add_argument("--precision", nargs="+", default=["float32"], choices=["float32", "bf16"])
    parser.add_argument("--largest", type=int, default=4096, help="members of the largest cohort tried")
    parser.add_argument("--steps", type=int, default=20, help="steps of a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=600, help="for all models together")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path, metavar="FILE", help="write machine and rows there too")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    report: Report = {"machine": machine(device), "ceilings": ceilings(device), "rows": []}
    show(report["machine"])
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
