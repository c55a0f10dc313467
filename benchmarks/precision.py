"""Compares bits_per_dim in bf16 and in float32: the same trainings with the same seeds.

    python benchmarks/precision.py --data-dir data --json sweeps/measured/precision.json

Members of one seed share initial weights, order of images and noise, so each seed gives one difference. Needs MNIST
and CIFAR-10 in `--data-dir`. Takes about half an hour on two cores.

Prints for each model: bits_per_dim in float32, the mean change by bf16 with its t interval of 95 % (validation
images), whether the interval lies within 0.002 bits a pixel, and how many times as fast bf16 is (epochs take turns;
median). `sweeps.run --precision auto` takes bf16 for the kinds of model that the file above says are within.
"""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from measuring import Report, begin, parser, seconds, write

from search_spaces import decoupled_st_gs, silent_gradients
from search_spaces.space import Study
from sweeps.analysis.statistics import mean
from sweeps.planning import stand_ins
from sweeps.planning.precision import Change, kind_of
from trainables.config import Precision, TrainingConfig
from trainables.data import Images, load
from trainables.packing.cohort import Cohort

_SILENT = {study.name: study for study in silent_gradients.STUDIES}
_DECOUPLED = {study.name: study for study in decoupled_st_gs.STUDIES}
_AT_1 = {decoupled_st_gs.FORWARD: 1.0, decoupled_st_gs.BACKWARD: 1.0}
_ABOVE_1 = {decoupled_st_gs.FORWARD: 1.6, decoupled_st_gs.BACKWARD: 1.3}
_GUIDED = {"method": "Reparameterization", "sg": "w/ SG"}


@dataclass(frozen=True)
class Model:
    """A cell of a paper's study, with as many epochs and images as a CPU can train in minutes.

    limit: images of each split; None for all.
    """

    study: Study
    labels: Mapping[str, Any]
    epochs: int
    limit: int | None = None

    def config(self, **changes: Any) -> TrainingConfig:
        """The configuration of the cell, without the diagnostics of its study."""
        cells = (config for labels, config in self.study.cells() if self.labels.items() <= labels.items())
        settings = next(cells) | {"epochs": self.epochs, "diagnostics": {}} | changes
        return TrainingConfig.model_validate(settings)


MODELS = {
    "mlp-4x8": Model(_DECOUPLED["dst/fig3"], _AT_1, epochs=20),
    "mlp-12x16": Model(_DECOUPLED["dst/fig4"], _ABOVE_1, epochs=15),
    "linear-mnist": Model(_SILENT["sg/table2"], {"method": "Reparameterization"}, epochs=6, limit=2_000),
    "dual-mnist": Model(_SILENT["sg/table3_mnist"], _GUIDED, epochs=6, limit=1_000),
    "dual-cifar10": Model(_SILENT["sg/table3_cifar10"], _GUIDED, epochs=6, limit=4_000),
    "binary-autoencoder": Model(
        _DECOUPLED["dst/fig2_cifar10"],
        {decoupled_st_gs.FORWARD: 0.3, decoupled_st_gs.BACKWARD: 3.0},
        epochs=6,
        limit=2_000,
    ),
}
"""Name to a model of the papers' studies."""


class Training:
    """A cohort with the seconds of each of its epochs and the bits_per_dim of each member after the last one."""

    def __init__(self, configs: Sequence[TrainingConfig], images: Images, device: torch.device):
        self._cohort, self._device = Cohort(configs, images, device=device), device
        self.epochs_s: list[float] = []
        self.bits_per_dim: list[float] = []

    def train_epoch(self) -> None:
        self.epochs_s.append(seconds(self._train_epoch, self._device))

    def _train_epoch(self) -> None:
        self.bits_per_dim = self._cohort.train_epoch()["bits_per_dim"].tolist()


def row(name: str, source: str, images: Images, *, seeds: int, device: torch.device, **changes: Any) -> Report:
    """The measurement of a model, on images of the data set `source`, with `changes` to its configuration."""
    full, lower = (
        Training([MODELS[name].config(precision=p, seed=seed, **changes) for seed in range(seeds)], images, device)
        for p in get_args(Precision)
    )
    for _ in range(MODELS[name].config(**changes).epochs):
        full.train_epoch()
        lower.train_epoch()
    differences = [b - a for a, b in zip(full.bits_per_dim, lower.bits_per_dim, strict=True)]
    compiled = zip(full.epochs_s[1:], lower.epochs_s[1:], strict=True)  # the first epoch compiles
    change, config = mean(differences), MODELS[name].config(**changes)
    return {
        "model": name,
        "kind": kind_of(config),
        "source": source,
        "images": len(images.train),
        "epochs": config.epochs,
        "seeds": seeds,
        "bits_per_dim": statistics.fmean(full.bits_per_dim),
        "change": {"mean": change.value, "low": change.low, "high": change.high},
        "differences": differences,
        "speedup": statistics.median(a / b for a, b in compiled),
    }


def main() -> None:
    """Measures, prints and writes. Rows of other models in the JSON file stay."""
    arguments = parser(__doc__)
    arguments.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS), metavar="MODEL")
    arguments.add_argument("--seeds", type=int, default=5)
    arguments.add_argument("--epochs", type=int, help="two or more, instead of each model's own")
    arguments.add_argument("--limit", type=int, help="images of each split, instead of each model's own")
    arguments.add_argument("--data-dir", type=Path, default=Path("data"))
    arguments.add_argument("--stand-in", nargs="+", default=[], metavar="NAME=OTHER", help="as for sweeps.run")
    args = arguments.parse_args()
    device, report = begin(args)
    others = stand_ins.parse(args.stand_in)
    if args.json and args.json.is_file():
        report["rows"] = [one for one in json.loads(args.json.read_text())["rows"] if one["model"] not in args.models]
    changes = {} if args.epochs is None else {"epochs": args.epochs}
    for name in args.models:
        asked = MODELS[name].config().data.name
        source = others.get(asked, asked)
        images = load(source, args.data_dir).limited(args.limit or MODELS[name].limit)
        measured = row(name, source, images, seeds=args.seeds, device=device, **changes)
        change = Change(**measured["change"])
        verdict = "negligible" if change.negligible else "not shown to be negligible"
        print(
            f"{name:<19}{measured['bits_per_dim']:8.4f} bits/dim   bf16: {change.mean:+.5f} "
            f"[{change.low:+.5f}, {change.high:+.5f}], {verdict}   {measured['speedup']:.2f} x as fast",
            flush=True,
        )
        report["rows"].append(measured)
        write(args.json, report)


if __name__ == "__main__":
    main()
