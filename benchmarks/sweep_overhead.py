"""Compares a sweep of short trainings with Ray Tune that starts a TorchTrainer for each.

    python benchmarks/sweep_overhead.py --json sweep_overhead.json

The same 32 members in both: the temperatures of `quickstart`, 4x8 categorical VAEs on the digits of scikit-learn, for
a few epochs. The ordinary way follows Ray's documentation: each Tune trial starts a TorchTrainer with one worker, which
trains with a DataLoader, reports every epoch, and saves a checkpoint at the end. Both are timed as whole commands,
one after the other, with imports and the start of Ray; ours also writes ledger, MLflow runs and report. Takes about
12 minutes on two cores; `--ordinary-members 4` takes two.

Prints the trainings an hour of both and their ratio. The aim is 20 times.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from itertools import product
from pathlib import Path
from typing import Any

import torch
from measuring import begin, parser, write

TEMPERATURES = (0.3, 0.5, 1.0, 2.0)
SEEDS = (0, 1)
GRID = [
    {"forward": forward, "backward": backward, "seed": seed}
    for forward, backward, seed in product(TEMPERATURES, TEMPERATURES, SEEDS)
]


def train_loop(config: dict[str, Any]) -> None:
    """One training in a worker of the ordinary way."""
    import ray.train
    from ray.train.torch import prepare_data_loader, prepare_model
    from sklearn.datasets import load_digits
    from torch import nn
    from torch.nn import functional as F
    from torch.utils.data import DataLoader, TensorDataset

    torch.manual_seed(config["seed"])
    images = torch.tensor(load_digits().images / 16, dtype=torch.float32).flatten(1)
    train, validation = images[:-180], images[-180:]
    loader = prepare_data_loader(DataLoader(TensorDataset(train), batch_size=100, shuffle=True))
    layers = (nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 32))
    encoder = prepare_model(nn.Sequential(*layers))
    decoder = prepare_model(
        nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64))
    )
    optimizer = torch.optim.RAdam([*encoder.parameters(), *decoder.parameters()], lr=4e-3)

    def loss(x: torch.Tensor) -> torch.Tensor:
        logits = encoder(x).unflatten(-1, (4, 8))
        noise = -torch.empty_like(logits).exponential_().log()
        hard = F.one_hot((logits / config["forward"] + noise).argmax(-1), 8)
        soft = (logits / config["backward"] + noise).softmax(-1)
        output = decoder((hard + soft - soft.detach()).flatten(1))
        pixels = F.binary_cross_entropy_with_logits(output, x, reduction="none").sum(-1)
        log_q = logits.log_softmax(-1)
        return (pixels + (log_q.exp() * (log_q - torch.tensor(1 / 8).log())).sum((-2, -1))).mean()

    for epoch in range(config["epochs"]):
        for (x,) in loader:
            optimizer.zero_grad()
            loss(x).backward()
            optimizer.step()
        with torch.no_grad():
            metrics = {"elbo": -loss(validation).item(), "epoch": epoch}
        if epoch < config["epochs"] - 1:
            ray.train.report(metrics)
            continue
        with tempfile.TemporaryDirectory() as folder:
            torch.save(encoder.state_dict(), Path(folder) / "encoder.pt")
            ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(folder))


def ordinary(members: int, epochs: int, storage: str) -> None:
    """Runs the sweep in the ordinary way, in this process."""
    import ray
    from ray import train, tune
    from ray.train.torch import TorchTrainer

    def trial(config: dict[str, Any]) -> None:
        from ray.tune.integration.ray_train import TuneReportCallback  # works inside a trial only

        TorchTrainer(
            train_loop,
            train_loop_config=config["train_loop_config"],
            scaling_config=train.ScalingConfig(num_workers=1, resources_per_worker={"CPU": 1}),
            run_config=train.RunConfig(
                name=tune.get_context().get_trial_id(),
                storage_path=storage,
                callbacks=[TuneReportCallback()],
            ),
        ).fit()

    ray.init(include_dashboard=False, log_to_driver=False)
    grid = [point | {"epochs": epochs} for point in GRID[:members]]
    results = tune.Tuner(
        tune.with_resources(trial, {"CPU": 0.01}),
        param_space={"train_loop_config": tune.grid_search(grid)},
        tune_config=tune.TuneConfig(max_concurrent_trials=os.cpu_count()),
        run_config=tune.RunConfig(storage_path=storage, verbose=0),
    ).fit()
    ray.shutdown()
    if results.errors or len(results) != members:
        sys.exit(f"{len(results.errors)} of {len(results)} trials failed: {results.errors[:1]}")


def ours(epochs: int, storage: str) -> list[str]:
    """The command that trains the same members with this project."""
    sweep = [sys.executable, "-m", "sweeps.run", "quickstart", "--only", "temperatures", "--storage", storage]
    return [*sweep, "--set", f"epochs={epochs}"]


def timed(command: list[str]) -> float:
    """Wall time of a command, in seconds.

    Raises:
        SystemExit: the command failed; the message ends with its last lines.
    """
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n" + (done.stdout + done.stderr)[-3000:])
    return time.perf_counter() - started


def main() -> None:
    """Measures, prints and writes."""
    arguments = parser(__doc__, trains=False)
    arguments.add_argument("--epochs", type=int, default=5, help="of each training")
    arguments.add_argument("--ordinary-members", type=int, default=len(GRID), help="fewer take less time")
    arguments.add_argument("--ordinary-only", metavar="STORAGE", help=argparse.SUPPRESS)
    args = arguments.parse_args()
    if args.ordinary_only:
        ordinary(args.ordinary_members, args.epochs, args.ordinary_only)
        return
    _, report = begin(args)
    report["epochs"] = args.epochs
    folder = tempfile.mkdtemp(prefix="sweep-overhead-")
    try:
        here = [sys.executable, __file__, "--epochs", str(args.epochs)]
        command = [*here, "--ordinary-members", str(args.ordinary_members), "--ordinary-only", f"{folder}/ordinary"]
        for name, members, took in (
            ("ours", len(GRID), timed(ours(args.epochs, f"{folder}/ours"))),
            ("ordinary", args.ordinary_members, timed(command)),
        ):
            hourly = 3600 * members / took
            print(f"{name:<9} {members:3} trainings in {took:7.1f} s: {hourly:8.0f} an hour", flush=True)
            report["rows"].append({"system": name, "members": members, "wall_s": took, "trainings_per_hour": hourly})
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    first, second = (row["trainings_per_hour"] for row in report["rows"])
    report["ratio"] = first / second
    print(f"{report['ratio']:.1f} x as many trainings an hour")
    write(args.json, report)


if __name__ == "__main__":
    main()
