"""A cohort: members of one shape, stacked and trained as one program.

Shapes. M members, B images of a batch, N training images. Parameters are held as one flat tensor [M, P] a group, so
that an optimizer step is a few passes over memory; `torch.func.vmap` lifts the objective of one member to all.

A member's numbers do not depend on its company: its randomness is its own (`streams`), its optimizer is elementwise,
and since losses are summed, the gradient of its loss reaches its parameters alone, also when a neighbour's is NaN.
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
from trainables.objective import VAE, Tensors
from trainables.packing.compiled import compiler_at_hand, program
from trainables.packing.optim import Coefficients, Group, coefficients
from trainables.packing.snapshot import Snapshot
from trainables.packing.step import Feed, State, Step, lift
from trainables.shards import ALONE, Shards
from trainables.streams import Purpose, Streams

EVALUATION_BATCH = 1000
CPU_PACKED_PARAMETERS = 400_000
"""Larger members are trained in turn on a CPU: their parameters and moments no longer share its cache."""
CPU_COMPILED_OPERATIONS = 5e12
"""Of a cohort's whole training, from which on compiling pays on a CPU: a minute of work, of which it saves a third."""
_GROUPS = ("encoder", "decoder", "guide.mu", "guide.alpha")


@dataclass
class Turn:
    """Members trained in one program: all of a packed cohort, or one.

    State, feed and programs stay where they are from epoch to epoch: a program may be bound to their addresses.
    """

    which: slice
    streams: Streams
    state: State
    feed: Feed | None = None
    programs: dict[int, Callable[[], None]] = field(default_factory=dict)
    """A step by the number of images of its batch."""

    def give(self, feed: Feed) -> None:
        """Takes over the values of an epoch's feed; where it has other tensors than the last one, programs are void."""
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
        configs: the members; all of one `shape_key`.
        images: the data set that they name.
        device: where to train.
        dtype: of parameters and arithmetic.
        packed: train all members in one program, or one after the other; None chooses by device and architecture.
        compiled: compile that program (`compiled.py`); None chooses by device and the length of the training.
        shards: the processes that train these members together, each on its share of every batch. Theirs is one member
            at a time, and is not compiled: what they wait for is the network, and each other.

    Raises:
        ValueError: no members, or members of different shapes, or several processes that are to pack or compile.
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
            raise ValueError("members that several processes train together are neither packed nor compiled")
        self.config, self.shards = configs[0], shards
        self.device, self.dtype = torch.device(device), dtype
        self.epoch = 0
        self._images = {split: _on_device(part, self.device) for split, part in images.splits.items()}
        members = [_initialised(config, images.image_shape) for config in configs]
        self._model = members[0].to(self.device)
        for layer in self._model.modules():
            if isinstance(layer, BatchNorm):
                layer.shards = shards
        states = [member.state_dict() for member in members]
        stacked = {name: torch.stack([s[name].to(self.device) for s in states]) for name in states[0]}
        parameters = [name for name, _ in self._model.named_parameters()]
        self._buffers = {
            name: value.to(dtype) if value.is_floating_point() else value
            for name, value in stacked.items()
            if name not in parameters
        }
        self.groups = {
            group: Group({name: stacked[name].to(dtype) for name in parameters if name.startswith(group + ".")})
            for group in _GROUPS
            if any(name.startswith(group + ".") for name in parameters)
        }
        knobs = [config.knobs() for config in configs]
        # In float64: schedules and optimizers subtract some of them from 1.
        self._knobs = {
            path: torch.tensor([k[path] for k in knobs], dtype=torch.float64, device=self.device) for path in knobs[0]
        }
        self._running = {name: torch.zeros(len(configs), dtype=dtype, device=self.device) for name in ("sum", "weight")}
        self._diverged_epoch = torch.zeros(len(configs), dtype=torch.int64, device=self.device)
        alone = shards.count == 1
        if packed is None:
            packed = alone and (self.device.type != "cpu" or self._packing_pays_on_cpu())
        self._packed, self._seeds = packed, [config.seed for config in configs]
        self._compiled = alone and self._compiling_pays() if compiled is None else compiled
        self._turns = self._in_turns()

    def __len__(self) -> int:
        return len(self._diverged_epoch)

    def _in_turns(self) -> list[Turn]:
        at_once = len(self) if self._packed else 1
        return [self._turn(slice(start, start + at_once)) for start in range(0, len(self), at_once)]

    def _turn(self, which: slice) -> Turn:
        state = State(
            weights={name: group.of(which) for name, group in self.groups.items()},
            buffers={name: value[which] for name, value in self._buffers.items()},
            running={name: value[which] for name, value in self._running.items()},
            loss=torch.zeros_like(self._running["sum"][which]),
            step=torch.zeros(1, dtype=torch.int64, device=self.device),
        )
        return Turn(which, Streams(self._seeds[which], device=self.device, dtype=self.dtype), state)

    @property
    def _parameters(self) -> int:
        """Of one member."""
        return sum(group.flat.shape[1] for group in self.groups.values())

    def _packing_pays_on_cpu(self) -> bool:
        dense = self.config.encoder.packs_on_cpu and self.config.decoder.packs_on_cpu
        return dense and self._parameters <= CPU_PACKED_PARAMETERS

    def _compiling_pays(self) -> bool:
        """By numbers of the configuration alone: the same training is compiled everywhere or nowhere."""
        products = 6 * self._parameters * len(self._images["train"]) * self.config.epochs * len(self)
        return compiler_at_hand(self.device) and (self.device.type != "cpu" or products >= CPU_COMPILED_OPERATIONS)

    @property
    def diverged_epoch(self) -> list[int | None]:
        """The epoch in which each member diverged, that is, had a loss or metric that is not finite."""
        return [epoch or None for epoch in self._diverged_epoch.tolist()]

    # --- training ----------------------------------------------------------------------------------------------------

    @ieee_float32()
    def train_epoch(self) -> dict[str, np.ndarray]:
        """One pass over the training images, then an evaluation on the validation images.

        Returns:
            Metrics by name, each [M] float64; NaN for members that have diverged.
        """
        self.epoch += 1
        knobs = objective.epoch_knobs(self.config, self._knobs, self.epoch)
        before = self.diverged_epoch
        losses = torch.cat([self._train_turn(turn, knobs, before) for turn in self._turns])
        metrics = {"train_loss": losses} | self._evaluate(knobs)
        finite = torch.stack(list(metrics.values())).isfinite().all(0)
        self._diverged_epoch[~finite & (self._diverged_epoch == 0)] = self.epoch
        # A diverged member is masked: its numbers are not reported, and none of them can reach its neighbours.
        diverged = self._diverged_epoch > 0
        return {name: value.double().masked_fill(diverged, torch.nan).cpu().numpy() for name, value in metrics.items()}

    def _train_turn(self, turn: Turn, epoch_knobs: Tensors, diverged: Sequence[int | None]) -> Tensor:
        """One epoch of some members; their mean loss over the epoch [m]."""
        which, state = turn.which, turn.state
        if None not in diverged[which]:
            return torch.full_like(state.loss, torch.nan)
        n, batch_size = len(self._images["train"]), self.config.batch_size
        knobs = {path: value[which] for path, value in epoch_knobs.items()}
        frozen = self.epoch >= knobs["guide.freeze_epoch"] if "guide.freeze_epoch" in knobs else None
        self._freeze_statistics(which, frozen)
        still = frozen is not None and bool(frozen.all())
        moving = tuple(name for name in self.groups if not (still and name == "encoder"))
        batches = -(-n // batch_size)
        steps = range((self.epoch - 1) * batches + 1, self.epoch * batches + 1)
        turn.give(
            Feed(
                images=self._images["train"],
                order=turn.streams.permutation(n, Purpose.ORDER, epoch=self.epoch),
                keys=turn.streams.keys,
                epoch=torch.full_like(state.step, self.epoch),
                knobs={path: value.to(self.dtype) for path, value in knobs.items()},
                coefficients={name: self._coefficients(name, knobs, steps, frozen) for name in moving},
                frozen=frozen,
            )
        )
        state.loss.zero_()
        state.step.zero_()
        self._model.train()
        for start in range(0, n, batch_size):  # nothing in here looks at a value: a GPU is never waited for
            self._program(turn, moving, min(batch_size, n - start))()
        return state.loss / n

    def _program(self, turn: Turn, moving: tuple[str, ...], rows: int) -> Callable[[], None]:
        """A step of a turn's members on a batch of some images."""
        if rows not in turn.programs:
            assert turn.feed is not None  # given at the beginning of the epoch
            layouts = {name: group.layout for name, group in self.groups.items()}
            step = Step(self.config, self._model, layouts, moving, rows, self.dtype, self.shards)
            key = (self.config.shape_key(), moving, rows, self.dtype)
            turn.programs[rows] = (
                program(step, key, turn.state, turn.feed) if self._compiled else partial(step, turn.state, turn.feed)
            )
        return turn.programs[rows]

    def _coefficients(self, group: str, knobs: Tensors, steps: range, frozen: Tensor | None) -> Coefficients:
        """What the optimizer of a group multiplies with in some steps; a guide's groups have learning rates of their
        own."""
        own = objective.sub_knobs(knobs, "optim")
        if group.startswith("guide."):
            own["lr"] = knobs[group.replace(".", ".lr_")]
        return coefficients(
            self.config.optim.name, own, steps, dtype=self.dtype, frozen=frozen if group == "encoder" else None
        )

    def _freeze_statistics(self, which: slice, frozen: Tensor | None) -> None:
        """Tells the encoder's normalization layers, whose statistics must stop with its parameters."""
        if frozen is not None:
            for name, value in self._buffers.items():
                if name.startswith("encoder.") and name.endswith(".frozen"):
                    value[which] = frozen.to(value.dtype)

    # --- evaluation --------------------------------------------------------------------------------------------------

    @ieee_float32()
    def test_metrics(self) -> dict[str, np.ndarray]:
        """Metrics on the test images, each [M] float64, of the members as they stand; none without such images.

        For the last figures of a report: nothing is ever chosen by them.
        """
        if "test" not in self._images:
            return {}
        knobs = objective.epoch_knobs(self.config, self._knobs, max(1, self.epoch))
        return {name: value.double().cpu().numpy() for name, value in self._evaluate(knobs, "test").items()}

    @torch.no_grad()
    def _evaluate(self, epoch_knobs: Tensors, split: str = "validation") -> Tensors:
        """Metrics [M] on the validation images, with noise that is the same in every epoch: that of an epoch 0."""
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
        """The members as they stand after this epoch, in the stacks that they are trained in."""
        yield from self._snapshots(objective.epoch_knobs(self.config, self._knobs, max(1, self.epoch)))

    def _snapshots(self, epoch_knobs: Tensors, split: str = "validation") -> Iterator[Snapshot]:
        self._model.eval()
        epoch_knobs = epoch_knobs | {"running_loss": self._running["sum"] / self._running["weight"].clamp(min=1e-12)}
        for turn in self._turns:
            which = turn.which
            yield Snapshot(
                config=self.config,
                parameters={n: v[which] for group in self.groups.values() for n, v in group.named().items()},
                buffers={name: value[which] for name, value in self._buffers.items()},
                knobs={path: value[which].to(self.dtype) for path, value in epoch_knobs.items()},
                images=self._images[split],
                streams=turn.streams,
                lift=lambda function: lift(function, self.config, self._model),
            )

    # --- state -------------------------------------------------------------------------------------------------------

    def keep(self, members: Sequence[int]) -> None:
        """Drops all members but these, which go on as if nothing had happened; what the others cost is saved.

        Args:
            members: positions of those kept. Their order becomes that of the cohort.

        Raises:
            ValueError: none, one that the cohort does not have, or one twice; nothing is changed then.
        """
        if not members or len(set(members)) < len(members) or not set(members) <= set(range(len(self))):
            raise ValueError(f"need one or more different members out of {len(self)}, got {list(members)}")
        which = torch.tensor(members, device=self.device)
        for group in self.groups.values():
            group.keep(which)
        for tensors in (self._buffers, self._knobs, self._running):
            tensors.update({name: value[which] for name, value in tensors.items()})
        self._diverged_epoch = self._diverged_epoch[which]
        self._seeds = [self._seeds[member] for member in members]
        self._turns = self._in_turns()

    def tensors(self) -> Tensors:
        """Parameters and buffers of all members by name in the model, each [M, ...]; views, not copies."""
        named = dict(self._buffers)
        for group in self.groups.values():
            named |= group.named()
        return named

    def member_state(self, member: int) -> Tensors:
        """The standard `state_dict` of one member's model, on the CPU."""
        return {name: value[member].detach().cpu().clone() for name, value in self.tensors().items()}

    def load_models(self, states: Sequence[Tensors], *, epoch: int, running_loss: Sequence[float]) -> None:
        """Takes up models that `member_state` gave, to be measured; what optimizers know is not among it.

        Args:
            states: a `state_dict` for each member.
            epoch: the last one trained.
            running_loss: for each member, in nats, what estimators with a running baseline take for it.

        Raises:
            KeyError: a state lacks a tensor of the model.
        """
        for name, value in self.tensors().items():
            value.copy_(torch.stack([state[name] for state in states]))
        self._running["sum"].copy_(torch.tensor(running_loss, dtype=torch.float64))
        self._running["weight"].fill_(1)
        self.epoch = epoch

    def _state(self) -> Tensors:
        """What training changes, by a name of its own; the tensors themselves, not copies."""
        tensors = {f"buffer/{name}": value for name, value in self._buffers.items()}
        tensors |= {f"running/{name}": value for name, value in self._running.items()}
        for name, group in self.groups.items():
            tensors |= {f"group/{name}": group.flat, f"mean/{name}": group.mean, f"square/{name}": group.square}
        return tensors | {"diverged_epoch": self._diverged_epoch}

    def state(self) -> Tensors:
        """A copy on the CPU of everything but `epoch` that `load_state` needs to go on as if nothing had happened."""
        return {name: value.detach().cpu().clone() for name, value in self._state().items()}

    def load_state(self, tensors: Tensors, epoch: int) -> None:
        """Takes up the state that a cohort of the same members had after some epoch.

        Raises:
            ValueError: tensors of other names, shapes or dtypes; nothing is changed then.
        """
        own = self._state()
        if {name: (t.shape, t.dtype) for name, t in own.items()} != {
            name: (t.shape, t.dtype) for name, t in tensors.items()
        }:
            raise ValueError("the state is of another cohort: its tensors have other names, shapes or dtypes")
        for name, value in own.items():
            value.copy_(tensors[name])
        self.epoch = epoch


def _on_device(images: np.ndarray, device: torch.device) -> Tensor:
    """Images as a tensor; on the CPU it shares their memory, which all processes of a machine may share."""
    with warnings.catch_warnings():
        # PyTorch knows no read-only tensors. Nothing here writes to images; if it did, the process would be stopped.
        warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
        return torch.as_tensor(images, device=device)


def _initialised(config: TrainingConfig, image_shape: tuple[int, int, int]) -> VAE:
    """A member's model with its initial weights: PyTorch's own initialization, drawn from the member's seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return VAE(config, image_shape)
