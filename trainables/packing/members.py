"""The tensors of a cohort's members: initial values, selection, saving and loading.

Shapes. M members, P parameters of a group. A group's parameters are one flat tensor [M, P], so that an optimizer step
is a few passes over memory.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from trainables.checkpoint import MOMENTS
from trainables.config import TrainingConfig
from trainables.models.base import ImageShape
from trainables.objective import VAE, Tensors
from trainables.packing.optim import Group
from trainables.packing.step import State

_GROUPS = ("encoder", "decoder", "guide.mu", "guide.alpha")
"""The parts of the model; each has its own optimizer."""


class Members:
    """Everything that training changes for M members of one shape.

    Args:
        configs: the members, all of one shape.
        image_shape: of their data set.
        device, dtype: of the tensors.
    """

    def __init__(
        self, configs: Sequence[TrainingConfig], image_shape: ImageShape, device: torch.device, dtype: torch.dtype
    ):
        models = [_initialised(config, image_shape) for config in configs]
        self.model = models[0].to(device)
        """The modules, which are called with the parameters of any member."""
        states = [model.state_dict() for model in models]
        stacked = {name: torch.stack([s[name].to(device) for s in states]) for name in states[0]}
        parameters = [name for name, _ in self.model.named_parameters()]
        self.buffers = {
            name: value.to(dtype) if value.is_floating_point() else value
            for name, value in stacked.items()
            if name not in parameters
        }
        self.groups = {
            group: Group({name: stacked[name].to(dtype) for name in parameters if name.startswith(group + ".")})
            for group in _GROUPS
            if any(name.startswith(group + ".") for name in parameters)
        }
        self.running = {name: torch.zeros(len(configs), dtype=dtype, device=device) for name in ("sum", "weight")}
        """Sum and weight [M] of the running average of the reconstruction loss."""
        self.diverged_epoch = torch.zeros(len(configs), dtype=torch.int64, device=device)
        """The epoch in which each member diverged [M]; 0 if it has not."""
        self.epoch = 0
        """The last epoch trained."""

    def __len__(self) -> int:
        return len(self.diverged_epoch)

    @property
    def parameters(self) -> int:
        """The number of parameters of one member."""
        return sum(group.flat.shape[1] for group in self.groups.values())

    @property
    def running_loss(self) -> Tensor:
        """The average reconstruction loss [M] of the steps so far, in nats an image."""
        return self.running["sum"] / self.running["weight"].clamp(min=1e-12)

    def of(self, which: slice) -> State:
        """The state of some members, which training steps change in place; views, not copies."""
        return State(
            weights={name: group.of(which) for name, group in self.groups.items()},
            buffers={name: value[which] for name, value in self.buffers.items()},
            running={name: value[which] for name, value in self.running.items()},
            loss=torch.zeros_like(self.running["sum"][which]),
            step=torch.zeros(1, dtype=torch.int64, device=self.diverged_epoch.device),
        )

    def keep(self, which: Tensor) -> None:
        """Keeps the members at these positions [m], in this order, and drops all others."""
        for group in self.groups.values():
            group.keep(which)
        for tensors in (self.buffers, self.running):
            tensors.update({name: value[which] for name, value in tensors.items()})
        self.diverged_epoch = self.diverged_epoch[which]

    def parameters_of(self, which: slice) -> Tensors:
        """Parameters of some members by name in the model, each [m, ...]; views, not copies."""
        return {name: value[which] for group in self.groups.values() for name, value in group.named().items()}

    def tensors(self) -> Tensors:
        """Parameters and buffers of all members by name in the model, each [M, ...]; views, not copies."""
        return self.buffers | self.parameters_of(slice(None))

    def model_state(self, member: int) -> Tensors:
        """The standard `state_dict` of one member's model, on the CPU."""
        return {name: value[member].detach().cpu().clone() for name, value in self.tensors().items()}

    def load_models(self, states: Sequence[Tensors], *, epoch: int, running_loss: Sequence[float]) -> None:
        """Loads models from `model_state`, for measurements; the optimizers' moments do not change.

        Args:
            states: a `state_dict` for each member.
            epoch: the last epoch trained.
            running_loss: for each member, in nats per image, for estimators with a running baseline.

        Raises:
            KeyError: a state lacks a tensor of the model.
        """
        for name, value in self.tensors().items():
            value.copy_(torch.stack([state[name] for state in states]))
        self.running["sum"].copy_(torch.tensor(running_loss, dtype=torch.float64))
        self.running["weight"].fill_(1)
        self.epoch = epoch

    def _named(self) -> Tensors:
        """All tensors by their names in a checkpoint; not copies."""
        tensors = {f"buffer/{name}": value for name, value in self.buffers.items()}
        tensors |= {f"running/{name}": value for name, value in self.running.items()}
        for name, group in self.groups.items():
            tensors |= {f"group/{name}": group.flat, f"mean/{name}": group.mean, f"square/{name}": group.square}
        return tensors | {"diverged_epoch": self.diverged_epoch}

    def state(self) -> Tensors:
        """A copy on the CPU of all that training needs to continue with the same numbers, except `epoch`."""
        return {name: value.detach().cpu().clone() for name, value in self._named().items()}

    def load_state(self, tensors: Tensors, epoch: int) -> None:
        """Loads the state of the same members after an epoch.

        If `tensors` has no moments (ended members do not need them), the present moments stay.

        Raises:
            ValueError: the tensors have other names, shapes or dtypes; nothing is changed then.
        """
        own = self._named()
        if not any(name.startswith(MOMENTS) for name in tensors):
            own = {name: value for name, value in own.items() if not name.startswith(MOMENTS)}
        if {name: (t.shape, t.dtype) for name, t in own.items()} != {
            name: (t.shape, t.dtype) for name, t in tensors.items()
        }:
            raise ValueError("the state belongs to another cohort: its tensors have other names, shapes or dtypes")
        for name, value in own.items():
            value.copy_(tensors[name])
        self.epoch = epoch


def _initialised(config: TrainingConfig, image_shape: ImageShape) -> VAE:
    """A member's model with PyTorch's default initial weights, drawn from the member's seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return VAE(config, image_shape)
