"""The epoch loop: trains cohorts, yields metrics, saves and restores checkpoints.

from trainables.training import train
results = train([config, …], device="cpu", data_dir="data")
"""

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainables.checkpoint import HISTORY, MOMENTS, CheckpointHeader, Dropped, read_checkpoint, write_checkpoint
from trainables.config import TrainingConfig
from trainables.data import load
from trainables.diagnostics import measure_due
from trainables.halving import Halving
from trainables.packing.cohort import Cohort
from trainables.renamed import renamed
from trainables.reports import History, Reason, Status


@dataclass(frozen=True)
class TrainingResult:
    """The result of one member. `epochs` is the number of epochs trained, or the epoch in which it diverged."""

    key: str
    status: Status
    reason: Reason | None
    epochs: int
    wall_s: float
    """The member's share of its cohort's wall time."""
    metrics: dict[str, float]
    """The last value of each metric, which for diagnostics may be of an earlier epoch; empty for a failed member. A
    finished member also has `test_*`, if there are test images. Units are those of `objective.metrics_of`."""
    history: dict[str, list[float]] = field(repr=False)
    """Metrics by name, one number per epoch, from the first."""
    state: dict[str, Tensor] = field(repr=False, default_factory=dict)
    """The model's `state_dict`; empty for a member that was stopped."""


class CohortTraining:
    """A cohort and its history, which a checkpoint saves.

    Iteration trains epoch by epoch and yields the number of each completed epoch. With `halving`, members that do not
    pass a rung are stopped and dropped from the cohort, so they cost no more time; so are diverged members, at a rung.
    """

    def __init__(
        self,
        configs: Sequence[TrainingConfig],
        *,
        device: torch.device | str,
        data_dir: Path,
        halving: Halving | None = None,
        **options: Any,
    ):
        self.keys = [config.key() for config in configs]
        self.epochs = configs[0].epochs
        data = configs[0].data
        images = load(data.name, Path(data_dir)).limited(data.limit)
        self.cohort = Cohort(configs, images, device=device, **options)
        self.wall_s = 0.0
        self._halving = halving
        self._rungs = halving.rungs(len(configs), self.epochs) if halving else {}
        self._kept = list(range(len(configs)))
        """The positions, among all members, of those still in the cohort."""
        self._dropped: dict[int, Dropped] = {}
        self._metrics: dict[str, list[np.ndarray]] = defaultdict(list)

    def __iter__(self) -> Iterator[int]:
        while not self.ended:
            started = time.perf_counter()
            metrics = self.cohort.train_epoch()
            self.wall_s += time.perf_counter() - started
            metrics |= measure_due(self.cohort)
            for name, value in metrics.items():
                everyone = np.full(len(self.keys), np.nan)
                everyone[self._kept] = value
                series = self._metrics[name]
                # The training may have started from the checkpoint of an older version without this metric.
                series += [np.full(len(self.keys), np.nan)] * (self.cohort.epoch - 1 - len(series))
                series.append(everyone)
            if self._halving and self.cohort.epoch in self._rungs:
                self._drop(metrics[self._halving.metric], self._rungs[self.cohort.epoch])
            yield self.cohort.epoch

    def _drop(self, values: np.ndarray, count: int) -> None:
        """Keeps only the best `count` members that have not diverged; at least one member stays."""
        assert self._halving is not None
        best = self._halving.best(values, count)
        diverged = self.cohort.diverged_epoch
        best = [member for member in best if diverged[member] is None] or best[:1]
        for member, position in enumerate(self._kept):
            if member not in best:
                self._dropped[position] = Dropped(epoch=self.cohort.epoch, diverged=diverged[member])
        self.cohort.keep(best)
        self._kept = [self._kept[member] for member in best]

    def history(self, since: int = 0) -> History:
        """Metrics of the epochs after `since`, each [epochs, all members] float64."""
        return {name: np.stack(values[since:]) for name, values in self._metrics.items() if len(values) > since}

    def results(self, with_state: bool = False) -> list[TrainingResult]:
        """The result of each member, in the order of the configurations; with weights if `with_state`."""
        history = self.history()
        in_cohort = {position: member for member, position in enumerate(self._kept)}
        diverged_epoch = self.cohort.diverged_epoch
        test = self.cohort.test_metrics() if self.cohort.epoch == self.epochs else {}
        trained = [self._dropped[p].epoch if p in self._dropped else self.cohort.epoch for p in range(len(self.keys))]
        results = []
        for position, key in enumerate(self.keys):
            member, dropped = in_cohort.get(position), self._dropped.get(position)
            diverged = dropped.diverged if dropped else diverged_epoch[in_cohort[position]]
            status = "failed" if diverged else "stopped" if dropped else "finished"
            epochs = diverged or trained[position]
            own = {
                name: values[: epochs - 1 if diverged else epochs, position].tolist()
                for name, values in history.items()
            }
            metrics = {} if diverged else _latest(own)
            if status == "finished":
                metrics |= {f"test_{name}": float(values[member]) for name, values in test.items()}
            results.append(
                TrainingResult(
                    key=key,
                    status=status,
                    reason="diverged" if diverged else None,
                    epochs=epochs,
                    wall_s=self.wall_s * trained[position] / max(1, sum(trained)),
                    metrics=metrics,
                    history=own,
                    state={} if member is None or not with_state else self.cohort.members.model_state(member),
                )
            )
        return results

    @property
    def ended(self) -> bool:
        """Whether the training is over: all epochs are trained, or every member has diverged."""
        return self.cohort.epoch >= self.epochs or None not in self.cohort.diverged_epoch

    def checkpoint(self) -> bytes:
        """The state as a checkpoint; without the optimizers' moments once the training has ended."""
        history, moments = self.history(), not self.ended
        header = CheckpointHeader(
            keys=self.keys,
            kept=self._kept,
            dropped=self._dropped,
            epoch=self.cohort.epoch,
            wall_s=self.wall_s,
            metrics=list(history),
            moments=moments,
        )
        state = {n: value for n, value in self.cohort.members.state().items() if moments or not n.startswith(MOMENTS)}
        return write_checkpoint(header, state | {HISTORY + n: torch.from_numpy(value) for n, value in history.items()})

    def restore(self, checkpoint: bytes) -> None:
        """Continues from a checkpoint of the same members.

        Raises:
            ValueError: this is not a checkpoint, it is damaged, has other members, or lacks tensors that the training
                needs; nothing is changed then.
        """
        header, tensors = read_checkpoint(checkpoint)
        if header.keys != self.keys:
            raise ValueError("the checkpoint belongs to other members")
        if header.removed:
            raise ValueError("some members were removed from the checkpoint, so it cannot be restored")
        history = {name: tensors.pop(HISTORY + name, torch.empty(0)).numpy() for name in header.metrics}
        if any((h.shape, h.dtype) != ((header.epoch, len(self.keys)), np.float64) for h in history.values()):
            raise ValueError("the checkpoint is damaged: its history does not fit its epochs and members")
        own = self.cohort.members.state()
        if not header.moments:
            diverged = tensors.get("diverged_epoch", torch.zeros(1))
            if header.epoch < self.epochs and not diverged.all():
                raise ValueError("the checkpoint has no optimizer state, but its training has not ended")
            own = {name: value for name, value in own.items() if not name.startswith(MOMENTS)}
        shapes = {name: (len(header.kept), *value.shape[1:]) for name, value in own.items()}
        if {name: tuple(value.shape) for name, value in tensors.items()} != shapes:
            raise ValueError("the checkpoint belongs to another cohort: its tensors have other names or shapes")
        if {name: value.dtype for name, value in tensors.items()} != {name: value.dtype for name, value in own.items()}:
            raise ValueError("the checkpoint belongs to another cohort: its tensors have other dtypes")
        if len(header.kept) < len(self._kept):
            self.cohort.keep(header.kept)
        self.cohort.members.load_state(tensors, header.epoch)
        self._kept, self._dropped = list(header.kept), dict(header.dropped)
        self.wall_s = header.wall_s
        self._metrics = defaultdict(list, {name: list(values) for name, values in renamed(history).items()})


def _latest(history: dict[str, list[float]]) -> dict[str, float]:
    """The last number of each metric that is not NaN: diagnostics are NaN in epochs without a measurement."""
    measured = {name: [value for value in values if value == value] for name, values in history.items()}
    return {name: values[-1] for name, values in measured.items() if values}


def train(
    configs: Sequence[TrainingConfig],
    *,
    device: torch.device | str = "cpu",
    data_dir: str | Path = "data",
    dtype: torch.dtype = torch.float32,
) -> list[TrainingResult]:
    """Trains configurations; those of the same shape form one cohort.

    Args:
        configs: the members, of any shapes.
        device: a torch device, or "auto" for CUDA if available, else the CPU.
        data_dir: the folder of data sets that are kept in files.
        dtype: of parameters and arithmetic.

    Returns:
        Results in the order of `configs`, each with its final `state`.

    Raises:
        DataError: the files of a data set are missing or damaged.
    """
    device = resolve_device(device)
    by_shape: dict[str, list[int]] = defaultdict(list)
    for index, config in enumerate(configs):
        by_shape[config.shape_key()].append(index)
    results: dict[int, TrainingResult] = {}
    for members in by_shape.values():
        training = CohortTraining(
            [configs[index] for index in members], device=device, data_dir=Path(data_dir), dtype=dtype
        )
        for _ in training:
            pass
        results |= dict(zip(members, training.results(with_state=True), strict=True))
    return [results[index] for index in range(len(configs))]


def resolve_device(device: torch.device | str) -> torch.device:
    """The torch device of a name; "auto" is CUDA if available, else the CPU."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(device)
