"""Compares a step of silent gradients with a step of reparameterization, in the same model.

    python benchmarks/silent.py                   # 200 latents
    python benchmarks/silent.py --latents 50 800 --json silent.json
    python benchmarks/silent.py --encoder mlp     # a cheap encoder hides less

The model is the 200-latent MNIST model of Silent Gradients (SG C.2, Table 5): three convolutions of 32 channels, a
linear decoder, batch 64, AdamW, on random images of 28x28. Takes about two minutes on one core.

Prints for each variant: milliseconds a step, and the ratio to reparameterization with the same likelihood (rounds of
a few steps take turns; median and quartiles). The aim is at most 1.1 times with a fixed variance, 1.5 with a learned
scale.
"""

import statistics
from typing import Any

import numpy as np
import torch
from measuring import begin, parser, seconds, write

from trainables.config import TrainingConfig
from trainables.data import Images
from trainables.packing.cohort import Cohort

BATCH = 64
FIXED, TAYLOR = {"name": "gaussian_fixed"}, {"name": "gaussian_precision", "log_term": "taylor"}
EXACT = {"name": "gaussian_precision", "log_term": "exact"}
PAIRS = {
    "fixed": ("silent", FIXED, FIXED),
    "learned/taylor": ("silent", TAYLOR, TAYLOR),
    "learned/exact": ("silent", EXACT, TAYLOR),
}
"""Variant to its estimator, its likelihood, and the likelihood of the reparameterization it is compared with."""


def cohort(
    estimator: str, likelihood: dict[str, str], encoder: str, latents: int, steps: int, device: torch.device
) -> Cohort:
    """One member on as many random images as `steps` steps an epoch need."""
    config = TrainingConfig.model_validate(
        {
            "latent": {"family": "gaussian", "size": latents},
            "encoder": {"name": encoder},  # by default conv3 has 32 channels, and the perceptron 512 and 256 units
            "decoder": {"name": "linear"},
            "likelihood": likelihood,
            "estimator": {"name": estimator},
            "optim": {"name": "adamw", "lr": 1e-4},
            "epochs": 10_000,
            "batch_size": BATCH,
        }
    )
    pixels = np.random.default_rng(0).integers(0, 256, (BATCH * steps, 1, 28, 28), dtype=np.uint8)
    return Cohort([config], Images(train=pixels, validation=pixels[:1]), device=device)


def compare(encoder: str, latents: int, *, rounds: int, steps: int, device: torch.device) -> list[dict[str, Any]]:
    """The step time of each variant and its ratio to reparameterization with the same likelihood."""
    keys = {("reparameterization", base["name"]): base for _, _, base in PAIRS.values()}
    trainings = {key: cohort(key[0], base, encoder, latents, steps, device) for key, base in keys.items()}
    trainings |= {(n, ""): cohort(e, own, encoder, latents, steps, device) for n, (e, own, _) in PAIRS.items()}
    for training in trainings.values():
        seconds(training.train_epoch, device)  # warm-up
    times = [
        {key: seconds(training.train_epoch, device) / steps for key, training in trainings.items()}
        for _ in range(rounds)
    ]
    rows = []
    for name, (_, _, base) in PAIRS.items():
        reference = ("reparameterization", base["name"])
        low, ratio, high = statistics.quantiles([one[name, ""] / one[reference] for one in times], n=4)
        rows.append(
            {
                "encoder": encoder,
                "latents": latents,
                "variant": name,
                "step_ms": 1e3 * statistics.median(one[name, ""] for one in times),
                "reparameterization_ms": 1e3 * statistics.median(one[reference] for one in times),
                "ratio": ratio,
                "ratio_quartiles": [low, high],
            }
        )
    return rows


def main() -> None:
    """Measures, prints and writes."""
    arguments = parser(__doc__)
    arguments.add_argument("--latents", type=int, nargs="+", default=[200], metavar="L", help="one or more sizes")
    arguments.add_argument("--encoder", default="conv3", choices=["conv3", "mlp"])
    arguments.add_argument("--rounds", type=int, default=15, help="ratios measured for each variant (two or more)")
    arguments.add_argument("--steps", type=int, default=4, help="steps of each variant in a round")
    args = arguments.parse_args()
    device, report = begin(args)
    print(f"median of {args.rounds} rounds of {args.steps} steps; quartiles in brackets")
    for latents in args.latents:
        for row in compare(args.encoder, latents, rounds=args.rounds, steps=args.steps, device=device):
            low, high = row["ratio_quartiles"]
            ratio, reference = f"{row['ratio']:.3f} [{low:.3f}, {high:.3f}]", row["reparameterization_ms"]
            step = f"L={latents:<4} {row['variant']:<15} {row['step_ms']:7.1f} ms/step"
            print(f"{step}   {ratio} x reparameterization ({reference:.1f} ms)", flush=True)
            report["rows"].append(row)
    write(args.json, report | {"rounds": args.rounds, "steps": args.steps, "batch": BATCH})


if __name__ == "__main__":
    main()
