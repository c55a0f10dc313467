"""A cohort: members of one shape, stacked and trained as one program.

Shapes. M members, B images of a batch, N training images. Parameters are held as one flat tensor [M, P] a group, so
that an optimizer step is a few passes over memory; `torch.func.vmap` lifts the objective of one member to all.

A member's numbers do not depend on its company: its randomness is its own (`streams`), its optimizer is elementwise,
and since losses are summed, the gradient of its loss reaches its parameters alone, also when a neighbour's is NaN.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import vmap
from torch.utils._pytree import tree_map

from trainables import objective
from trainables.config import TrainingConfig
from trainables.data import Images
from trainables.objective import VAE, Tensors
from trainables.optim import Moments, update
from trainables.streams import Purpose, Streams

EVALUATION_BATCH = 1000
_GROUPS = ("encoder", "decoder", "guide.mu", "guide.alpha")
_NOISE = {"gaussian": "normal", "bernoulli": "logistic", "categorical": "gumbel"}


class Group:
    """One optimizer's parameters for all members, flat [M, P], with their names and shapes."""

    def __init__(self, stacked: Tensors):
        self.names = list(stacked)
        self.shapes = [value.shape[1:] for value in stacked.values()]
        self.flat = torch.cat([value.flatten(1) for value in stacked.values()], dim=1)
        self.moments = Moments.zeros_like(self.flat)

    def named(self, flat: Tensor) -> Tensors:
        """Views of flat [m, P] by name, each [m, *shape]."""
        pieces = flat.split([shape.numel() for shape in self.shapes], dim=1)
        return {
            name: piece.unflatten(1, shape) if shape else piece[:, 0]
            for name, shape, piece in zip(self.names, self.shapes, pieces, strict=True)
        }


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
        self._step = 0
        self._images = {
            "train": torch.as_tensor(images.train, device=self.device),
            "validation": torch.as_tensor(images.validation, device=self.device),
        }
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
        self._knobs = {
            path: torch.tensor([k[path] for k in knobs], dtype=dtype, device=self.device) for path in knobs[0]
        }
        self._running = {name: torch.zeros(len(configs), dtype=dtype, device=self.device) for name in ("sum", "weight")}
        self._diverged = torch.zeros(len(configs), dtype=torch.bool, device=self.device)
        self.diverged_epoch: list[int | None] = [None] * len(configs)
        if packed is None:
            pays = self.config.encoder.packs_on_cpu and self.config.decoder.packs_on_cpu
            packed = pays or self.device.type != "cpu"
        members_at_once = len(configs) if packed else 1
        seeds = [config.seed for config in configs]
        self._turns = [
            (
                slice(start, start + members_at_once),
                Streams(seeds[start : start + members_at_once], device=device, dtype=dtype),
            )
            for start in range(0, len(configs), members_at_once)
        ]

    def __len__(self) -> int:
        return len(self._diverged)

    # --- training ----------------------------------------------------------------------------------------------------

    def train_epoch(self) -> dict[str, np.ndarray]:
        """One pass over the training images, then an evaluation on the validation images.

        Returns:
            Metrics by name, each [M] float64; NaN for members that have diverged.
        """
        self.epoch += 1
        knobs = objective.epoch_knobs(self.config, self._knobs, self.epoch)
        losses = torch.cat([self._train_turn(which, streams, knobs) for which, streams in self._turns])
        self._step += -(-len(self._images["train"]) // self.config.batch_size)
        metrics = {"train_loss": losses} | self._evaluate(knobs)
        healthy = torch.stack(list(metrics.values())).isfinite().all(0) & ~self._diverged
        for member in (~healthy).nonzero()[:, 0].tolist():
            self._diverged[member] = True
            if self.diverged_epoch[member] is None:
                self.diverged_epoch[member] = self.epoch
        # A diverged member is masked: its numbers are not reported, and none of them can reach its neighbours.
        return {
            name: value.masked_fill(self._diverged, torch.nan).double().cpu().numpy() for name, value in metrics.items()
        }

    def _train_turn(self, which: slice, streams: Streams, knobs: Tensors) -> Tensor:
        """One epoch of some members; their mean loss over the epoch [m]."""
        n, batch_size = len(self._images["train"]), self.config.batch_size
        knobs = {path: value[which] for path, value in knobs.items()}
        optim = {
            path.removeprefix("optim."): value[:, None] for path, value in knobs.items() if path.startswith("optim.")
        }
        rates = {
            group: optim | {"lr": knobs[f"guide.lr_{group[6:]}"][:, None]} if group.startswith("guide.") else optim
            for group in self.groups
        }
        frozen = self._frozen(knobs)
        self._freeze_statistics(which, frozen)
        still = frozen is not None and bool(frozen.all())
        moving = {name: group for name, group in self.groups.items() if not (still and name == "encoder")}
        order = streams.permutation(n, Purpose.ORDER, epoch=self.epoch)
        total = torch.zeros_like(self._running["sum"][which])
        for index, start in enumerate(range(0, n, batch_size)):
            rows = order[:, start : start + batch_size]
            x = self._pixels(self._images["train"][rows], streams, Purpose.PIXELS, index)
            loss, gradients = self._gradients(which, streams, x, index, knobs, moving)
            for (name, group), gradient in zip(moving.items(), gradients, strict=True):
                update(
                    self.config.optim.name,
                    group.flat[which],
                    gradient,
                    group.moments.members(which),
                    rates[name],
                    self._step + index + 1,
                    frozen if name == "encoder" else None,
                )
            total += loss * rows.shape[1]
        return total / n

    def _gradients(
        self, which: slice, streams: Streams, x: Tensor, step: int, knobs: Tensors, moving: Mapping[str, Group]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Loss [m] of a batch and its gradient [m, P] for every moving group; the others cost no backward pass."""
        noise = self._noise(
            streams, self.config.estimator.noise_shape((x.shape[1], *self.config.latent.z_shape)), Purpose.LATENT, step
        )
        running = {name: value[which] for name, value in self._running.items()}
        knobs = knobs | {"running_loss": running["sum"] / running["weight"].clamp(min=1e-12)}
        leaves = [group.flat[which].detach().requires_grad_() for group in moving.values()]
        tensors = {name: value[which] for name, value in self.tensors().items()}
        for group, leaf in zip(moving.values(), leaves, strict=True):
            tensors |= group.named(leaf)
        self._model.train()
        result = _lift(objective.training_loss, self.config, self._model)(tensors, x, noise, knobs)
        gradients = torch.autograd.grad(result.loss.sum(), leaves)
        if self.config.estimator.uses_running_loss:
            momentum = knobs["estimator.baseline_momentum"]
            running["sum"].lerp_(result.reconstruction, 1 - momentum)
            running["weight"].lerp_(torch.ones_like(momentum), 1 - momentum)
        loss = result.loss.detach()
        self._diverged[which] |= ~loss.isfinite()
        return loss, gradients

    def _frozen(self, knobs: Tensors) -> Tensor | None:
        """[m, 1] bool: whose encoder no longer moves in this epoch; None where no member ever freezes."""
        return (self.epoch >= knobs["guide.freeze_epoch"])[:, None] if "guide.freeze_epoch" in knobs else None

    def _freeze_statistics(self, which: slice, frozen: Tensor | None) -> None:
        """Tells the encoder's normalization layers, whose statistics must stop with its parameters."""
        if frozen is not None:
            for name, value in self._buffers.items():
                if name.startswith("encoder.") and name.endswith(".frozen"):
                    value[which] = frozen[:, 0].to(value.dtype)

    # --- randomness --------------------------------------------------------------------------------------------------

    def _noise(
        self, streams: Streams, shape: tuple[int, ...], purpose: Purpose, step: int, epoch: int | None = None
    ) -> Tensor:
        draw: Callable[..., Tensor] = getattr(streams, _NOISE[self.config.latent.family])
        return draw(shape, purpose, epoch=self.epoch if epoch is None else epoch, step=step)

    def _pixels(
        self, images: Tensor, streams: Streams, purpose: Purpose, step: int, epoch: int | None = None
    ) -> Tensor:
        """What the model sees [m, B, C, H, W] of uint8 images of that shape."""
        epoch = self.epoch if epoch is None else epoch
        shape = tuple(images.shape[1:])
        match self.config.data.pixels:
            case "dequantize":
                return (images + streams.uniform_coarse(shape, purpose, epoch=epoch, step=step)).mul_(1 / 256)
            case "unit":
                return images.to(self.dtype) / 255
            case "binarize":
                return (
                    streams.uniform_coarse(shape, purpose, epoch=epoch, step=step) < images.to(self.dtype) / 255
                ).to(self.dtype)

    # --- evaluation --------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def _evaluate(self, knobs: Tensors) -> Tensors:
        """Metrics [M] on the validation images, with noise that is the same in every epoch."""
        self._model.eval()
        images = self._images["validation"]
        parts = []
        for which, streams in self._turns:
            tensors = {name: value[which] for name, value in self.tensors().items()}
            own = {path: value[which] for path, value in knobs.items()}
            sums: Tensors = {}
            for step, start in enumerate(range(0, len(images), EVALUATION_BATCH)):
                batch = images[start : start + EVALUATION_BATCH]
                x = batch.expand(len(own["optim.lr"]), *batch.shape)
                x = self._pixels(x, streams, Purpose.EVALUATION_PIXELS, step, epoch=0)
                noise = self._noise(
                    streams, (len(batch), *self.config.latent.z_shape), Purpose.EVALUATION_LATENT, step, epoch=0
                )
                more = _lift(objective.evaluation_sums, self.config, self._model)(tensors, x, noise, own)
                sums = {name: sums.get(name, 0) + value for name, value in more.items()}
            parts.append(sums)
        total = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        return objective.metrics_of(self.config, total, len(images), images[0].numel())

    # --- state -------------------------------------------------------------------------------------------------------

    def tensors(self) -> Tensors:
        """Parameters and buffers of all members by name in the model, each [M, ...]; views, not copies."""
        named = dict(self._buffers)
        for group in self.groups.values():
            named |= group.named(group.flat)
        return named

    def member_state(self, member: int) -> Tensors:
        """The standard `state_dict` of one member's model, on the CPU."""
        return {name: value[member].detach().cpu().clone() for name, value in self.tensors().items()}

    def state(self) -> tuple[Tensors, dict[str, Any]]:
        """Everything that `load_state` needs to go on as if nothing had happened: tensors, and plain data."""
        tensors = {f"buffer/{name}": value for name, value in self._buffers.items()}
        for name, group in self.groups.items():
            tensors[f"group/{name}"] = group.flat
            tensors[f"mean/{name}"], tensors[f"square/{name}"] = group.moments.mean, group.moments.square
        tensors |= {f"running/{name}": value for name, value in self._running.items()}
        tensors["diverged"] = self._diverged
        plain = {"epoch": self.epoch, "step": self._step, "diverged_epoch": self.diverged_epoch}
        return {name: value.detach().cpu().contiguous() for name, value in tensors.items()}, plain

    def load_state(self, tensors: Tensors, plain: dict[str, Any]) -> None:
        """Takes up a state that a cohort of the same members gave."""
        own = {f"buffer/{name}": value for name, value in self._buffers.items()}
        for name, group in self.groups.items():
            own |= {
                f"group/{name}": group.flat,
                f"mean/{name}": group.moments.mean,
                f"square/{name}": group.moments.square,
            }
        own |= {f"running/{name}": value for name, value in self._running.items()} | {"diverged": self._diverged}
        if own.keys() != tensors.keys() or any(own[name].shape != tensors[name].shape for name in own):
            raise ValueError("this checkpoint is of another cohort: its tensors have other names or shapes")
        for name, value in own.items():
            value.copy_(tensors[name])
        self.epoch, self._step = int(plain["epoch"]), int(plain["step"])
        self.diverged_epoch = list(plain["diverged_epoch"])


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
