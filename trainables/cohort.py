"""A cohort: members of one shape, stacked and trained as one program.

Shapes. M members, B images of a batch, N training images. Parameters are held as one flat tensor [M, P] a group, so
that an optimizer step is a few passes over memory; `torch.func.vmap` lifts the objective of one member to all.

A member's numbers do not depend on its company: its randomness is its own (`streams`), its optimizer is elementwise,
and since losses are summed, the gradient of its loss reaches its parameters alone, also when a neighbour's is NaN.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import vmap
from torch.utils._pytree import tree_map

from trainables import objective
from trainables.config import TrainingConfig
from trainables.data import Images
from trainables.objective import VAE, Tensors
from trainables.optim import Coefficients, Group, coefficients
from trainables.pixels import observed
from trainables.snapshot import Snapshot
from trainables.streams import Purpose, Streams

EVALUATION_BATCH = 1000
CPU_PACKED_PARAMETERS = 400_000
"""Larger members are trained in turn on a CPU: their parameters and moments no longer share its cache."""
_GROUPS = ("encoder", "decoder", "guide.mu", "guide.alpha")


class Turn(NamedTuple):
    """Members trained in one program: all of a packed cohort, or one."""

    which: slice
    streams: Streams


class Cohort:
    """M trainings of one shape.

    Args:
        configs: the members; all of one `shape_key`.
        images: the data set that they name.
        device: where to train.
        dtype: of parameters and arithmetic.
        packed: train all members in one program, or one after the other; None chooses by device and architecture.

    Raises:
        ValueError: no members, or members of different shapes.
    """

    def __init__(
        self,
        configs: Sequence[TrainingConfig],
        images: Images,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        packed: bool | None = None,
    ):
        if len({config.shape_key() for config in configs}) != 1:
            raise ValueError(f"a cohort needs one or more members of one shape, got {len(configs)} of different shapes")
        self.config = configs[0]
        self.device, self.dtype = torch.device(device), dtype
        self.epoch = 0
        self._images = {split: _on_device(part, self.device) for split, part in images.splits.items()}
        members = [_initialised(config, images.image_shape) for config in configs]
        self._model = members[0].to(self.device)
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
        if packed is None:
            packed = self.device.type != "cpu" or self._packing_pays_on_cpu()
        self._packed, self._seeds = packed, [config.seed for config in configs]
        self._turns = self._in_turns()

    def __len__(self) -> int:
        return len(self._diverged_epoch)

    def _in_turns(self) -> list[Turn]:
        at_once = len(self) if self._packed else 1
        slices = [slice(start, start + at_once) for start in range(0, len(self), at_once)]
        return [Turn(which, Streams(self._seeds[which], device=self.device, dtype=self.dtype)) for which in slices]

    def _packing_pays_on_cpu(self) -> bool:
        dense = self.config.encoder.packs_on_cpu and self.config.decoder.packs_on_cpu
        return dense and sum(group.flat.shape[1] for group in self.groups.values()) <= CPU_PACKED_PARAMETERS

    @property
    def diverged_epoch(self) -> list[int | None]:
        """The epoch in which each member diverged, that is, had a loss or metric that is not finite."""
        return [epoch or None for epoch in self._diverged_epoch.tolist()]

    # --- training ----------------------------------------------------------------------------------------------------

    def train_epoch(self) -> dict[str, np.ndarray]:
        """One pass over the training images, then an evaluation on the validation images.

        Returns:
            Metrics by name, each [M] float64; NaN for members that have diverged.
        """
        self.epoch += 1
        knobs = objective.epoch_knobs(self.config, self._knobs, self.epoch)
        losses = torch.cat([self._train_turn(turn, knobs) for turn in self._turns])
        metrics = {"train_loss": losses} | self._evaluate(knobs)
        finite = torch.stack(list(metrics.values())).isfinite().all(0)
        self._diverged_epoch[~finite & (self._diverged_epoch == 0)] = self.epoch
        # A diverged member is masked: its numbers are not reported, and none of them can reach its neighbours.
        diverged = self._diverged_epoch > 0
        return {name: value.double().masked_fill(diverged, torch.nan).cpu().numpy() for name, value in metrics.items()}

    def _train_turn(self, turn: Turn, epoch_knobs: Tensors) -> Tensor:
        """One epoch of some members; their mean loss over the epoch [m]."""
        which, streams = turn
        n, batch_size = len(self._images["train"]), self.config.batch_size
        total = torch.zeros_like(self._running["sum"][which])
        if self._diverged_epoch[which].all():
            return total.fill_(torch.nan)
        knobs = {path: value[which] for path, value in epoch_knobs.items()}
        frozen = self.epoch >= knobs["guide.freeze_epoch"] if "guide.freeze_epoch" in knobs else None
        self._freeze_statistics(which, frozen)
        still = frozen is not None and bool(frozen.all())
        moving = {name: group for name, group in self.groups.items() if not (still and name == "encoder")}
        batches = -(-n // batch_size)
        steps = range((self.epoch - 1) * batches + 1, self.epoch * batches + 1)
        plans = {name: self._coefficients(name, knobs, steps, frozen) for name in moving}
        order = streams.permutation(n, Purpose.ORDER, epoch=self.epoch)
        knobs = {path: value.to(self.dtype) for path, value in knobs.items()}
        self._model.train()
        for step, rows in enumerate(order.split(batch_size, dim=1)):
            x = self._observed(self._images["train"][rows], streams, Purpose.PIXELS, step, self.epoch)
            loss, gradients = self._gradients(turn, x, step, knobs, moving)
            for (name, group), gradient in zip(moving.items(), gradients, strict=True):
                if frozen is not None and name == "encoder":
                    gradient.masked_fill_(frozen[:, None], 0.0)  # a rate of 0 does not stop a gradient of infinity
                group.update(which, gradient, plans[name][step])
            total += loss * rows.shape[1]
        return total / n

    def _coefficients(self, group: str, knobs: Tensors, steps: range, frozen: Tensor | None) -> list[Coefficients]:
        """What the optimizer of a group multiplies with in some steps; a guide's groups have learning rates of their
        own."""
        own = objective.sub_knobs(knobs, "optim")
        if group.startswith("guide."):
            own["lr"] = knobs[group.replace(".", ".lr_")]
        return coefficients(
            self.config.optim.name, own, steps, dtype=self.dtype, frozen=frozen if group == "encoder" else None
        )

    def _gradients(
        self, turn: Turn, x: Tensor, step: int, knobs: Tensors, moving: Mapping[str, Group]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Loss [m] of a batch and its gradient [m, P] for every moving group; the others cost no backward pass."""
        which, streams = turn
        shape = self.config.estimator.noise_shape((x.shape[1], *self.config.latent.z_shape))
        noise = self._noise(streams, shape, Purpose.LATENT, step, self.epoch)
        running = {name: value[which] for name, value in self._running.items()}
        knobs = knobs | {"running_loss": running["sum"] / running["weight"].clamp(min=1e-12)}
        leaves = [group.flat[which].detach().requires_grad_() for group in moving.values()]
        tensors = {name: value[which] for name, value in self.tensors().items()}
        for group, leaf in zip(moving.values(), leaves, strict=True):
            tensors |= group.named(leaf)
        result = _lift(objective.training_loss, self.config, self._model)(tensors, x, noise, knobs)
        gradients = torch.autograd.grad(result.loss.sum(), leaves)
        if self.config.estimator.uses_running_loss:
            momentum = knobs["estimator.baseline_momentum"]
            running["sum"].lerp_(result.reconstruction, 1 - momentum)
            running["weight"].lerp_(torch.ones_like(momentum), 1 - momentum)
        return result.loss.detach(), gradients

    def _freeze_statistics(self, which: slice, frozen: Tensor | None) -> None:
        """Tells the encoder's normalization layers, whose statistics must stop with its parameters."""
        if frozen is not None:
            for name, value in self._buffers.items():
                if name.startswith("encoder.") and name.endswith(".frozen"):
                    value[which] = frozen.to(value.dtype)

    def _noise(self, streams: Streams, shape: tuple[int, ...], purpose: Purpose, step: int, epoch: int) -> Tensor:
        draw: Callable[..., Tensor] = getattr(streams, self.config.latent.noise)
        return draw(shape, purpose, epoch=epoch, step=step)

    def _observed(self, images: Tensor, streams: Streams, purpose: Purpose, step: int, epoch: int) -> Tensor:
        return observed(self.config.data.pixels, images, streams, purpose, epoch=epoch, step=step)

    # --- evaluation --------------------------------------------------------------------------------------------------

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
                more = members.lift(objective.evaluation_sums)(members.tensors, x, noise, members.knobs)
                sums = {name: sums.get(name, 0) + value for name, value in more.items()}
            parts.append(sums)
        total = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        images = self._images[split]
        return objective.metrics_of(self.config, total, len(images), images[0].numel())

    def snapshots(self) -> Iterator[Snapshot]:
        """The members as they stand after this epoch, in the stacks that they are trained in."""
        yield from self._snapshots(objective.epoch_knobs(self.config, self._knobs, max(1, self.epoch)))

    def _snapshots(self, epoch_knobs: Tensors, split: str = "validation") -> Iterator[Snapshot]:
        self._model.eval()
        epoch_knobs = epoch_knobs | {"running_loss": self._running["sum"] / self._running["weight"].clamp(min=1e-12)}
        for which, streams in self._turns:
            yield Snapshot(
                config=self.config,
                parameters={n: v[which] for group in self.groups.values() for n, v in group.named(group.flat).items()},
                buffers={name: value[which] for name, value in self._buffers.items()},
                knobs={path: value[which].to(self.dtype) for path, value in epoch_knobs.items()},
                images=self._images[split],
                streams=streams,
                lift=lambda function: _lift(function, self.config, self._model),
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
            named |= group.named(group.flat)
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


def _lift(function: Callable[..., Any], config: TrainingConfig, model: nn.Module) -> Callable[..., Any]:
    """`function` of one member as a function of a stack of members; a stack of one is not lifted, since that costs."""

    def one(*args: Any) -> Any:
        return function(config, model, *args)

    def stacked(*args: Any) -> Any:
        if next(iter(args[0].values())).shape[0] > 1:
            return vmap(one)(*args)
        single = one(*tree_map(lambda value: value[0], args))
        return tree_map(lambda value: value[None], single)

    return stacked
