"""Compares epochs of a guided member before its guide is over, after it, and after it with a guide that trains on.

    python benchmarks/guide.py --threads 1 --json guide.json

The networks are those of Silent Gradients on 32x32 images (Tables 7 and 8, 1,024 latents) or perceptrons. The guide is
over once the encoder is frozen (epoch 80 of 2,000 on CIFAR-10). Takes about two minutes on one core.

Prints for each way: milliseconds of a step (the ways take turns; median of the rounds), its share of a step in which
everything trains, and its share of a step whose frozen encoder still has a guide in training ("trains_on").
"""

import statistics
from typing import Any

import numpy as np
import torch
from measuring import begin, parser, seconds, write
from torch import Tensor

from trainables.config import TrainingConfig
from trainables.data import Images
from trainables.packing.cohort import Cohort

NETWORKS = {
    "strided": {
        "latent": {"family": "gaussian", "size": 1024},
        "encoder": {"name": "strided", "channels": (32, 64, 128, 256)},
        "decoder": {"name": "strided", "channels": (256, 128, 64, 32)},
    },
    "mlp": {
        "latent": {"family": "gaussian", "size": 8},
        "encoder": {"name": "mlp", "hidden": (16,)},
        "decoder": {"name": "mlp", "hidden": (16,)},
    },
}
FROZEN, NEVER = 1, None


class TrainsOn(Cohort):
    """A cohort whose guides train to the end."""

    def _still(self, knobs: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: members for name, members in super()._still(knobs).items() if name == "encoder"}


WAYS: dict[str, tuple[type[Cohort], int | None]] = {
    "all_train": (Cohort, NEVER),
    "trains_on": (TrainsOn, FROZEN),
    "over": (Cohort, FROZEN),
}
"""Name to the kind of cohort and the epoch in which the encoder freezes."""


def cohort(way: str, network: str, batch_size: int, steps: int, device: torch.device) -> Cohort:
    """A cohort of one member, on random images for some steps an epoch."""
    kind, freeze_epoch = WAYS[way]
    config = TrainingConfig.model_validate(
        {
            **NETWORKS[network],
            "likelihood": {"name": "gaussian_log_scale"},
            "estimator": {"name": "reparameterization"},
            "guide": {"freeze_epoch": freeze_epoch, "lr_mu": 1e-4, "lr_alpha": 1e-4},
            "optim": {"name": "adamw", "lr": 1e-4},
            "epochs": 1000,
            "batch_size": batch_size,
        }
    )
    pixels = np.random.default_rng(0).integers(0, 256, (batch_size * steps, 3, 32, 32), dtype=np.uint8)
    return kind([config], Images(train=pixels, validation=pixels[:2]), device=device, compiled=False)


def rows(network: str, batch_size: int, steps: int, rounds: int, device: torch.device) -> list[dict[str, Any]]:
    """A row for each way. The first round is not counted."""
    cohorts = {way: cohort(way, network, batch_size, steps, device) for way in WAYS}
    times = [{way: seconds(one.train_epoch, device) for way, one in cohorts.items()} for _ in range(rounds + 1)][1:]
    return [
        {
            "network": network,
            "way": way,
            "step_ms": statistics.median(one[way] for one in times) * 1e3 / steps,
            "share": statistics.median(one[way] / one["all_train"] for one in times),
            "of_trains_on": statistics.median(one[way] / one["trains_on"] for one in times),
        }
        for way in WAYS
    ]


def main() -> None:
    """Measures, prints and writes."""
    arguments = parser(__doc__)
    arguments.add_argument("--network", choices=NETWORKS, default="strided")
    arguments.add_argument("--batch-size", type=int, default=256)
    arguments.add_argument("--steps", type=int, default=4, help="of an epoch")
    arguments.add_argument("--rounds", type=int, default=5, help="of each way")
    args = arguments.parse_args()
    device, report = begin(args)
    report["rows"] = rows(args.network, args.batch_size, args.steps, args.rounds, device)
    for row in report["rows"]:
        print(
            f"{row['way']:>10}: {row['step_ms']:9.1f} ms a step, {row['share']:.2f} of a step in which all train, "
            f"{row['of_trains_on']:.2f} of one whose guide trains on",
            flush=True,
        )
    write(args.json, report)


if __name__ == "__main__":
    main()
