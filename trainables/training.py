"""The epoch loop: trains cohorts, yields metrics, takes and gives checkpoints.

from trainables.training import train
results = train([config, …], device="cpu", data_dir="data")
"""

import hashlib
import json
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from safetensors import SafetensorError
from torch import Tensor

from trainables.config import TrainingConfig
from trainables.data import load
from trainables.diagnostics import measure_due
from trainables.halving import Halving
from trainables.packing.cohort import Cohort
from trainables.renamed import renamed
from trainables.reports import History, Reason, Status

CHECKPOINT_FORMAT = 1
_HISTORY = "history/"


@dataclass(frozen=True)
class TrainingResult:
    """What came of one member. `epochs` is the number trained; of a diverged member, the epoch it diverged in."""

    key: str
    status: Status
    reason: Reason | None
    epochs: int
    wall_s: float
    """The member's share of its cohort's wall time."""
    metrics: dict[str, float]
    """Of the last epoch, diagnostics as last measured, and for a finished member `test_*` on the test images, if there
    are any; empty for a failed member."""
    history: dict[str, list[float]] = field(repr=False)
    """Metrics by name, one number an epoch from the first."""
    state: dict[str, Tensor] = field(repr=False, default_factory=dict)
    """The model's `state_dict`; empty for a member that was stopped."""


class CohortTraining:
    """A cohort together with its history: what a checkpoint holds.

    Iterating trains epoch by epoch and yields the number of each epoch completed. With `halving`, members that do not
    pass a rung are stopped there, dropped from the cohort and cost nothing any more; so are those that have diverged.
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
        """The members that are in the cohort, by their position among all."""
        self._dropped: dict[int, Dropped] = {}
        self._metrics: dict[str, list[np.ndarray]] = defaultdict(list)

    def __iter__(self) -> Iterator[int]:
        while self.cohort.epoch < self.epochs and None in self.cohort.diverged_epoch:
            started = time.perf_counter()
            metrics = self.cohort.train_epoch()
            self.wall_s += time.perf_counter() - started
            metrics |= measure_due(self.cohort)
            for name, value in metrics.items():
                everyone = np.full(len(self.keys), np.nan)
                everyone[self._kept] = value
                series = self._metrics[name]
                # An older program, whose checkpoint this began from, may not have had this metric.
                series += [np.full(len(self.keys), np.nan)] * (self.cohort.epoch - 1 - len(series))
                series.append(everyone)
            if self._halving and self.cohort.epoch in self._rungs:
                self._drop(metrics[self._halving.metric], self._rungs[self.cohort.epoch])
            yield self.cohort.epoch

    def _drop(self, values: np.ndarray, count: int) -> None:
        """Lets only the best `count` members train on."""
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
        """Metrics of the epochs after `since`."""
        return {name: np.stack(values[since:]) for name, values in self._metrics.items() if len(values) > since}

    def results(self, with_state: bool = False) -> list[TrainingResult]:
        """What came of each member, in the order of the configurations."""
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

    def checkpoint(self) -> bytes:
        """The state as a safetensors file whose metadata say what it is."""
        history = self.history()
        tensors = self.cohort.members.state() | {
            _HISTORY + name: torch.from_numpy(values) for name, values in history.items()
        }
        header = CheckpointHeader(
            format=CHECKPOINT_FORMAT,
            keys=self.keys,
            kept=self._kept,
            dropped=self._dropped,
            epoch=self.cohort.epoch,
            wall_s=self.wall_s,
            metrics=list(history),
        ).model_dump_json()
        return safetensors.torch.save(tensors, metadata={"training": header, "sha256": _sha256(header, tensors)})

    def restore(self, checkpoint: bytes) -> None:
        """Goes on from a checkpoint of the same members.

        Raises:
            ValueError: not a checkpoint, a damaged one, or one of other members; nothing is changed then.
        """
        header, tensors = read_checkpoint(checkpoint)
        if header.keys != self.keys:
            raise ValueError("this checkpoint is of other members")
        history = {name: tensors.pop(_HISTORY + name, torch.empty(0)).numpy() for name in header.metrics}
        if any((h.shape, h.dtype) != ((header.epoch, len(self.keys)), np.float64) for h in history.values()):
            raise ValueError("this checkpoint is damaged: its history is not of its epochs and members")
        shapes = {name: (len(header.kept), *value.shape[1:]) for name, value in self.cohort.members.state().items()}
        if {name: tuple(value.shape) for name, value in tensors.items()} != shapes:
            raise ValueError("this checkpoint is of another cohort: its tensors have other names or shapes")
        if len(header.kept) < len(self._kept):
            self.cohort.keep(header.kept)
        self.cohort.members.load_state(tensors, header.epoch)
        self._kept, self._dropped = list(header.kept), dict(header.dropped)
        self.wall_s = header.wall_s
        self._metrics = defaultdict(list, {name: list(values) for name, values in renamed(history).items()})


def _latest(history: dict[str, list[float]]) -> dict[str, float]:
    """The last number of each metric; a diagnostic is NaN in epochs without a measurement."""
    measured = {name: [value for value in values if value == value] for name, values in history.items()}
    return {name: values[-1] for name, values in measured.items() if values}


class Dropped(BaseModel):
    """A member that trains no more: after which epoch, and in which it diverged, if that is why."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    epoch: Annotated[int, Field(ge=1)]
    diverged: Annotated[int | None, Field(ge=1)] = None


class CheckpointHeader(BaseModel):
    """What a checkpoint says beside its tensors.

    keys: of all members of the cohort. kept: the positions among them of those whose tensors it holds, in their order.
    dropped: what became of the others, by position. epoch: the last one trained. metrics: in the order of the history.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)

    format: Literal[1]
    keys: list[str]
    kept: list[Annotated[int, Field(ge=0)]]
    dropped: dict[int, Dropped]
    epoch: Annotated[int, Field(ge=0)]
    wall_s: Annotated[float, Field(ge=0)]
    metrics: list[str]

    @model_validator(mode="after")
    def _positions_fit(self) -> Self:
        if sorted([*self.kept, *self.dropped]) != list(range(len(self.keys))):
            raise ValueError("every member is either kept or dropped")
        return self

    def member(self, key: str) -> int:
        """The position of a member's tensors; raises KeyError where there are none of it."""
        position = self.keys.index(key) if key in self.keys else -1
        if position not in self.kept:
            raise KeyError(key)
        return self.kept.index(position)


def read_checkpoint(checkpoint: bytes) -> tuple[CheckpointHeader, dict[str, Tensor]]:
    """Header and tensors of a checkpoint; executes no code.

    Raises:
        ValueError: not a checkpoint of this format, or a damaged one.
    """
    try:
        size = int.from_bytes(checkpoint[:8], "little")
        metadata = json.loads(checkpoint[8 : 8 + size])["__metadata__"]
        header = CheckpointHeader.model_validate_json(metadata["training"])
        tensors = safetensors.torch.load(checkpoint)
        intact = metadata["sha256"] == _sha256(metadata["training"], tensors)
    except (SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"not a training checkpoint of format {CHECKPOINT_FORMAT} ({type(error).__name__})") from None
    if not intact:
        raise ValueError("this checkpoint is damaged: its checksum differs")
    return header, tensors


def _sha256(header: str, tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256(header.encode())
    for name in sorted(tensors):
        values = tensors[name].numpy()
        digest.update(f"{name} {values.dtype} {values.shape}".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()


def train(
    configs: Sequence[TrainingConfig],
    *,
    device: torch.device | str = "cpu",
    data_dir: str | Path = "data",
    dtype: torch.dtype = torch.float32,
) -> list[TrainingResult]:
    """Trains configurations of any shapes, those of one shape packed together.

    Args:
        configs: what to train.
        device: a torch device, or "auto" for CUDA where there is one.
        data_dir: where data sets that are not embedded lie.
        dtype: of parameters and arithmetic.

    Returns:
        Results in the order of `configs`, each with its final `state`.

    Raises:
        UnknownName: a configuration names an unknown data set.
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
    """The torch device that "auto" or a device's name stands for."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(device)
