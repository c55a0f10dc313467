"""A cohort: members of one shape, stacked and trained as one program.

Shapes. M members, m of one stack, N training images. `torch.func.vmap` lifts the objective of one member to all.

A member's numbers do not depend on the other members: it has its own random streams (`streams`), its optimizer is
elementwise, and the losses are summed, so the gradient of its loss reaches only its own parameters. A member whose loss
is NaN does not change the others.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten

from trainables import objective
from trainables.config import TrainingConfig
from trainables.data import Images
from trainables.ieee import ieee_float32
from trainables.models.normalization import BatchNorm
from trainables.objective import Tensors
from trainables.optimizers import Coefficients
from trainables.packing.compiled import program
from trainables.packing.members import Members
from trainables.packing.policy import compiling_pays, packing_pays
from trainables.packing.snapshot import Snapshot
from trainables.packing.step import Feed, State, Step, lift
from trainables.shards import ALONE, Shards
from trainables.streams import Purpose, Streams

EVALUATION_BATCH = 1000


@dataclass
class Stack:
    """Members trained as one program: all members of a packed cohort, or a single member.

    State, feed and programs stay at the same addresses from epoch to epoch, because a CUDA graph is bound to them.
    """

    which: slice
    streams: Streams
    state: State
    feed: Feed | None = None
    programs: dict[int, Callable[[], None]] = field(default_factory=dict)
    """The step by the number of images in a batch; the last batch of an epoch may be smaller."""

    def give(self, feed: Feed) -> None:
        """Copies the values of an epoch's feed; drops the programs if the feed has other tensors than the last one."""
        old, new = tree_flatten(self.feed), tree_flatten(feed)
        if old[1] != new[1]:
            self.feed, self.programs = feed, {}
            return
        for mine, value in zip(old[0], new[0], strict=True):
            if mine is not value:
                mine.copy_(value)


class Cohort:
    """M trainings of one shape.

    Args:
        configs: the members; all have the same `shape_key`.
        images: the data set that they name.
        device: where to train.
        dtype: of parameters and arithmetic.
        packed: train all members in one program, or one after the other; None chooses by device and architecture.
        compiled: compile that program (`compiled.py`); None chooses by device and the length of the training.
        shards: the processes that train these members together, each on its share of every batch. They train one member
            at a time, without compilation: most of their time is spent waiting for the network and for each other.

    Raises:
        ValueError: there are no members, or members of different shapes; or several processes with `packed` or
            `compiled`.
    """

    def __init__(
        self,
        configs: Sequence[TrainingConfig],
        images: Images,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        packed: bool | None = None,
        compiled: bool | None = None,
        shards: Shards = ALONE,
    ):
        if len({config.shape_key() for config in configs}) != 1:
            raise ValueError(f"a cohort needs one or more members of one shape, got {len(configs)} of different shapes")
        if shards.count > 1 and (packed or compiled):
            raise ValueError("members that several processes train together can be neither packed nor compiled")
        self.config, self.shards = configs[0], shards
        self.device, self.dtype = torch.device(device), dtype
        self._images = {split: _on_device(part, self.device) for split, part in images.splits.items()}
        self.members = Members(configs, images.image_shape, self.device, dtype)
        self._model = self.members.model
        for layer in self._model.modules():
            if isinstance(layer, BatchNorm):
                layer.shards = shards
        knobs = [config.knobs() for config in configs]
        # float64, because schedules and optimizers subtract some of them from 1.
        self._knobs = {
            path: torch.tensor([k[path] for k in knobs], dtype=torch.float64, device=self.device) for path in knobs[0]
        }
        self._seeds = [config.seed for config in configs]
        alone, size = shards.count == 1, self.members.parameters
        if packed is None:
            packed = alone and packing_pays(self.config, size, self.device)
        if compiled is None:
            compiled = alone and compiling_pays(self.config, size, len(images.train), len(configs), self.device)
        self.packed, self.compiled = packed, compiled
        self._stacks = self._stacked()

    def __len__(self) -> int:
        return len(self.members)

    def _stacked(self) -> list[Stack]:
        at_once = len(self) if self.packed else 1
        return [self._stack(slice(start, start + at_once)) for start in range(0, len(self), at_once)]

    def _stack(self, which: slice) -> Stack:
        streams = Streams(self._seeds[which], device=self.device, dtype=self.dtype)
        return Stack(which, streams, self.members.of(which))

    @property
    def epoch(self) -> int:
        """The last epoch trained."""
        return self.members.epoch

    @property
    def diverged_epoch(self) -> list[int | None]:
        """The epoch in which each member diverged (a loss or metric was not finite); None if it has not."""
        return [epoch or None for epoch in self.members.diverged_epoch.tolist()]

    # --- training ----------------------------------------------------------------------------------------------------

    @ieee_float32()
    def train_epoch(self) -> dict[str, np.ndarray]:
        """Trains on every training image once, then evaluates on the validation images.

        Returns:
            Metrics by name, each [M] float64 (units: `objective.metrics_of`); NaN for members that have diverged.
        """
        self.members.epoch += 1
        knobs = objective.epoch_knobs(self.config, self._knobs, self.epoch)
        before = self.diverged_epoch
        losses = torch.cat([self._train_stack(stack, knobs, before) for stack in self._stacks])
        metrics = {"train_loss": losses} | self._evaluate(knobs)
        finite = torch.stack(list(metrics.values())).isfinite().all(0)
        self.members.diverged_epoch[~finite & (self.members.diverged_epoch == 0)] = self.epoch
        # Numbers of a diverged member are not reported; they cannot reach other members in any case.
        diverged = self.members.diverged_epoch > 0
        return {name: value.double().masked_fill(diverged, torch.nan).cpu().numpy() for name, value in metrics.items()}

    def _train_stack(self, stack: Stack, epoch_knobs: Tensors, diverged: Sequence[int | None]) -> Tensor:
        """Trains the members of a stack for one epoch. Returns their mean loss over the epoch [m], nats per image."""
        which, state = stack.which, stack.state
        if None not in diverged[which]:
            return torch.full_like(state.loss, torch.nan)
        n, batch_size = len(self._images["train"]), self.config.batch_size
        knobs = {path: value[which] for path, value in epoch_knobs.items()}
        still = self._still(knobs)
        self._freeze_statistics(which, still.get("encoder"))
        moving = tuple(name for name in self.members.groups if name not in still or not still[name].all())
        batches = -(-n // batch_size)
        steps = range((self.epoch - 1) * batches + 1, self.epoch * batches + 1)
        stack.give(
            Feed(
                images=self._images["train"],
                order=stack.streams.permutation(n, Purpose.ORDER, epoch=self.epoch),
                keys=stack.streams.keys,
                epoch=torch.full_like(state.step, self.epoch),
                knobs={path: value.to(self.dtype) for path, value in knobs.items()},
                coefficients={name: self._coefficients(name, knobs, steps, still.get(name)) for name in moving},
                still={name: members for name, members in still.items() if name in moving},
            )
        )
        state.loss.zero_()
        state.step.zero_()
        self._model.train()
        for start in range(0, n, batch_size):  # reads no value of a tensor, so it never waits for the GPU
            self._program(stack, moving, min(batch_size, n - start))()
        return state.loss / n

    def _program(self, stack: Stack, moving: tuple[str, ...], rows: int) -> Callable[[], None]:
        """The step of a stack's members on a batch of `rows` images."""
        if rows not in stack.programs:
            assert stack.feed is not None  # given at the beginning of the epoch
            layouts = {name: group.layout for name, group in self.members.groups.items()}
            step = Step(self.config, self._model, layouts, moving, rows, self.dtype, self.shards)
            key = (self.config.shape_key(), moving, rows, self.dtype)
            stack.programs[rows] = (
                program(step, key, stack.state, stack.feed) if self.compiled else partial(step, stack.state, stack.feed)
            )
        return stack.programs[rows]

    def _still(self, knobs: Tensors) -> Tensors:
        """Members whose encoder is frozen or whose guide is over, bool [m] by group; empty without a guide."""
        if self.config.guide is None:
            return {}
        over = knobs["guide.over"] > 0
        guide = {name: over for name in self.members.groups if name.startswith("guide.")}
        return {"encoder": self.epoch >= knobs["guide.freeze_epoch"], **guide}

    def _coefficients(self, group: str, knobs: Tensors, steps: range, still: Tensor | None) -> Coefficients:
        """The optimizer's coefficients of a group at these steps; the guide's groups have their own learning rates.

        still: members whose parameters of this group must not change, bool [m].
        """
        own = objective.sub_knobs(knobs, "optim")
        if group.startswith("guide."):
            own["lr"] = knobs[group.replace(".", ".lr_")]
        return self.config.optim.coefficients(own, steps, dtype=self.dtype, frozen=still)

    def _freeze_statistics(self, which: slice, frozen: Tensor | None) -> None:
        """Marks frozen members in the encoder's normalization layers, so that their statistics stop changing too."""
        if frozen is not None:
            for name, value in self.members.buffers.items():
                if name.startswith("encoder.") and name.endswith(".frozen"):
                    value[which] = frozen.to(value.dtype)

    # --- evaluation --------------------------------------------------------------------------------------------------

    @ieee_float32()
    def test_metrics(self) -> dict[str, np.ndarray]:
        """Metrics on the test images after the epochs trained so far, each [M] float64; empty without test images.

        They are for the final figures of a report. Nothing is ever selected by them.
        """
        if "test" not in self._images:
            return {}
        knobs = objective.epoch_knobs(self.config, self._knobs, max(1, self.epoch))
        return {name: value.double().cpu().numpy() for name, value in self._evaluate(knobs, "test").items()}

    @torch.no_grad()
    def _evaluate(self, epoch_knobs: Tensors, split: str = "validation") -> Tensors:
        """Metrics [M] on the images of a split. The noise is the same after every epoch: that of epoch 0."""
        parts = []
        for members in self._snapshots(epoch_knobs, split):
            sums: Tensors = {}
            for step, x in enumerate(members.batches(EVALUATION_BATCH)):
                noise = members.noise((x.shape[1], *self.config.latent.z_shape), Purpose.EVALUATION_LATENT, step=step)
                own = self.shards.of(x.shape[1])
                more = members.lift(objective.evaluation_sums)(members.tensors, x[:, own], noise[:, own], members.knobs)
                sums = {name: sums.get(name, 0) + value for name, value in more.items()}
            parts.append({name: self.shards.total(value) for name, value in sums.items()})
        total = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        images = self._images[split]
        return objective.metrics_of(self.config, total, len(images), images[0].numel())

    def snapshots(self) -> Iterator[Snapshot]:
        """The members after the last epoch, one snapshot for each stack."""
        yield from self._snapshots(objective.epoch_knobs(self.config, self._knobs, max(1, self.epoch)))

    def _snapshots(self, epoch_knobs: Tensors, split: str = "validation") -> Iterator[Snapshot]:
        self._model.eval()
        epoch_knobs = epoch_knobs | {"running_loss": self.members.running_loss}
        for stack in self._stacks:
            which = stack.which
            yield Snapshot(
                config=self.config,
                parameters=self.members.parameters_of(which),
                buffers={name: value[which] for name, value in self.members.buffers.items()},
                knobs={path: value[which].to(self.dtype) for path, value in epoch_knobs.items()},
                images=self._images[split],
                streams=stack.streams,
                lift=lambda function: lift(function, self.config, self._model),
            )

    def keep(self, members: Sequence[int]) -> None:
        """Drops all members but these. The numbers of the kept members do not change; the dropped ones cost no time.

        Args:
            members: positions of the members to keep, in their new order.

        Raises:
            ValueError: no position, a position outside the cohort, or the same position twice; nothing is changed then.
        """
        if not members or len(set(members)) < len(members) or not set(members) <= set(range(len(self))):
            raise ValueError(f"need one or more different members out of {len(self)}, got {list(members)}")
        which = torch.tensor(members, device=self.device)
        self.members.keep(which)
        self._knobs = {name: value[which] for name, value in self._knobs.items()}
        self._seeds = [self._seeds[member] for member in members]
        self._stacks = self._stacked()


def _on_device(images: np.ndarray, device: torch.device) -> Tensor:
    """Images as a tensor; on the CPU without a copy, since processes may share the memory of the images."""
    with warnings.catch_warnings():
        # PyTorch has no read-only tensors. Nothing here writes to images; a write would end the process.
        warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
        return torch.as_tensor(images, device=device)
