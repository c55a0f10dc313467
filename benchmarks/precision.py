"""By how much bf16 moves bits_per_dim: the same trainings, seed by seed, in float32 and in bf16.

    python benchmarks/precision.py --data-dir data --json sweeps/measured/precision.json

Members of one seed share initial weights, order of images and noise, so each seed gives one difference; told are their
mean and its t interval of 95 %, on validation images. `--precision auto` of `sweeps.run` takes bf16 for the kinds of
model whose interval lies within 0.002 bits a pixel, by the file that comes with the program. See benchmarks/README.md.
"""

import argparse
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from measuring import Report, machine, seconds, show, write

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
    """A cell of a paper's study, with the epochs and images that a CPU has the time for.

    limit: images of each split; None for all.
    """

    study: Study
    labels: Mapping[str, Any]
    epochs: int
    limit: int | None = None

    def config(self, **changes: Any) -> TrainingConfig:
        """Its configuration, without the diagnostics of its study."""
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
"""By name: models of the papers' studies."""


def trained(configs: Sequence[TrainingConfig], images: Images, device: torch.device) -> tuple[list[float], float]:
    """Of a cohort: each member's bits_per_dim after the last epoch, and the seconds of all epochs but the first."""
    cohort = Cohort(configs, images, device=device)
    last = cohort.train_epoch()  # compiles

    def others() -> None:
        nonlocal last
        for _ in range(1, configs[0].epochs):
            last = cohort.train_epoch()

    took = seconds(others, device)
    return last["bits_per_dim"].tolist(), took


def row(name: str, source: str, images: Images, *, seeds: int, device: torch.device, **changes: Any) -> Report:
    """A model's measurement on some images, which are of the data set `source`; `changes` go to its configuration."""
    full, lower = (
        trained([MODELS[name].config(precision=p, seed=seed, **changes) for seed in range(seeds)], images, device)
        for p in get_args(Precision)
    )
    differences = [b - a for a, b in zip(full[0], lower[0], strict=True)]
    change, config = mean(differences), MODELS[name].config(**changes)
    return {
        "model": name,
        "kind": kind_of(config),
        "source": source,
        "images": len(images.train),
        "epochs": config.epochs,
        "seeds": seeds,
        "bits_per_dim": statistics.fmean(full[0]),
        "change": {"mean": change.value, "low": change.low, "high": change.high},
        "differences": differences,
        "speedup": full[1] / lower[1],
    }


def main() -> None:
    """Measures, prints, and writes what it was asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS), metavar="MODEL")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, help="instead of each model's own")
    parser.add_argument("--limit", type=int, help="images of each split, instead of each model's own")
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    parser.add_argument("--stand-in", nargs="+", default=[], metavar="NAME=OTHER", help="as of sweeps.run")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path, metavar="FILE", help="write it there too; other models' rows in it stay")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    others = stand_ins.parse(args.stand_in)
    report: Report = {"machine": machine(device), "rows": []}
    show(report["machine"])
    if args.json and args.json.is_file():
        report["rows"] = [one for one in json.loads(args.json.read_text())["rows"] if one["model"] not in args.models]
    changes = {} if args.epochs is None else {"epochs": args.epochs}
    for name in args.models:
        asked = MODELS[name].config().data.name
        source = others.get(asked, asked)
        images = load(source, args.data_dir).limited(args.limit or MODELS[name].limit)
        found = row(name, source, images, seeds=args.seeds, device=device, **changes)
        low, high = found["change"]["low"], found["change"]["high"]
        verdict = "negligible" if Change(**found["change"]).negligible else "not shown to be negligible"
        print(
            f"{name:<19}{found['bits_per_dim']:8.4f} bits/dim   bf16: {found['change']['mean']:+.5f} "
            f"[{low:+.5f}, {high:+.5f}], {verdict}   {found['speedup']:.2f} x as fast",
            flush=True,
        )
        report["rows"].append(found)
        write(args.json, report)


if __name__ == "__main__":
    main()
