"""One training step of a stack of members, as a function of tensors alone.

Shapes. m members of one stack, B images of a batch, N training images, P parameters of a group, S steps of an epoch.

Everything that changes from step to step is in a tensor, including the number of the step, and no value of a tensor is
read on the host. So the function can be called, or captured once and replayed (`compiled`), without waiting for a GPU.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import vmap
from torch.utils._pytree import tree_map

from trainables import objective
from trainables.config import TrainingConfig
from trainables.objective import Tensors
from trainables.optimizers import Coefficients
from trainables.packing.optim import Layout, Weights
from trainables.pixels import observed
from trainables.shards import ALONE, Shards
from trainables.streams import Purpose, Streams


class State(NamedTuple):
    """The tensors that a step changes in place."""

    weights: dict[str, Weights]
    """By group, including groups that are not trained."""
    buffers: Tensors
    """By name in the model, each [m, ...]."""
    running: Tensors
    """Sum and weight [m] of the running average of the reconstruction loss."""
    loss: Tensor
    """The losses of the epoch so far, summed over images [m], in nats."""
    step: Tensor
    """The number of steps done in this epoch, int64 [1]."""


class Feed(NamedTuple):
    """The tensors that the steps of an epoch read."""

    images: Tensor
    """uint8 [N, C, H, W]."""
    order: Tensor
    """Each member's order of the images, int64 [m, N]."""
    keys: Tensor
    """The keys of the members' random streams (`Streams.keys`)."""
    epoch: Tensor
    """The epoch, counted from 1, int64 [1]."""
    knobs: Tensors
    """By dotted path, each [m]."""
    coefficients: dict[str, Coefficients]
    """The optimizer's coefficients by moving group, each field [S, m, 1]."""
    still: Tensors
    """The members that do not move, bool [m], by moving group; groups that always move are absent."""


@dataclass(frozen=True)
class Step:
    """A step on a batch of `rows` images; `state.step` is 0 before the first step of an epoch.

    It holds no tensor of a cohort: its compiled program is reused by other cohorts, and must not keep one in memory.

    config: any member of the cohort; only its shape fields are read.
    moving: the groups that are trained; other groups cost no backward pass.
    shards: this process takes its share of each batch; sums are over all processes.
    """

    config: TrainingConfig
    model: nn.Module
    layouts: Mapping[str, Layout]
    moving: tuple[str, ...]
    rows: int
    dtype: torch.dtype
    shards: Shards = ALONE

    def __call__(self, state: State, feed: Feed) -> None:
        streams = Streams(feed.keys, dtype=self.dtype)
        at = {"epoch": feed.epoch, "step": state.step}
        batch = state.step * self.config.batch_size + torch.arange(self.rows, device=state.step.device)
        images = feed.images[feed.order.index_select(1, batch)]
        x = observed(self.config.data.pixels, images, streams, Purpose.PIXELS, **at)
        shape = self.config.estimator.noise_shape((self.rows, *self.config.latent.z_shape))
        draw: Callable[..., Tensor] = getattr(streams, self.config.latent.noise)
        noise = self._own(draw(shape, Purpose.LATENT, **at))
        loss, gradients = self.gradients(state, x[:, self.shards.of(self.rows)], noise, feed.knobs)
        for name, gradient in gradients.items():
            if name in feed.still:
                gradient.masked_fill_(feed.still[name][:, None], 0.0)  # a rate of 0 does not stop an infinite gradient
            state.weights[name].update(gradient, feed.coefficients[name].at(state.step))
        state.loss.add_(loss, alpha=self.rows)
        state.step.add_(1)

    def _own(self, noise: Tensor) -> Tensor:
        """The part of the batch's noise [m, ...] for this process's images; the estimator chooses the images' axis."""
        share = self.shards.of(self.rows)
        z_shape, shape = self.config.latent.z_shape, self.config.estimator.noise_shape
        own = shape((share.stop - share.start, *z_shape))
        for axis, (whole, part) in enumerate(zip(noise.shape[1:], own, strict=True), start=1):
            if whole != part:
                noise = noise.narrow(axis, share.start, part)
        return noise

    def gradients(self, state: State, x: Tensor, noise: Tensor, knobs: Tensors) -> tuple[Tensor, Tensors]:
        """The batch's mean loss [m], nats per image, and its gradient [m, P] for every moving group.

        Also updates the running average of the reconstruction loss in `state`, if the estimator uses it.

        Args:
            state: of the members.
            x: this process's images of the batch, [m, B, C, H, W].
            noise: for these images, [m, ...] as `Estimator.noise_shape` says.
            knobs: by dotted path, each [m].
        """
        running = state.running
        knobs = knobs | {"running_loss": running["sum"] / running["weight"].clamp(min=1e-12)}
        tensors, leaves = dict(state.buffers), {}
        with torch.enable_grad():
            for name, weights in state.weights.items():
                flat = weights.parameters
                if name in self.moving:
                    flat = leaves[name] = flat.detach().requires_grad_()
                tensors |= self.layouts[name].named(flat)
            guided = any(name.startswith("guide.") for name in self.moving)
            training_loss = partial(objective.training_loss, guided=guided)
            sums = lift(training_loss, self.config, self.model)(tensors, x, noise, knobs)
            loss = sums.loss / self.rows
            gradients = torch.autograd.grad(loss.sum(), list(leaves.values()))
        if self.config.estimator.uses_running_loss:
            momentum = self.config.estimator.running_loss_momentum(objective.estimator_knobs(knobs))
            reconstruction = self.shards.total(sums.reconstruction) / self.rows
            running["sum"].lerp_(reconstruction, 1 - momentum)
            running["weight"].lerp_(torch.ones_like(momentum), 1 - momentum)
        totals = map(self.shards.total, gradients)
        return self.shards.total(loss.detach()), dict(zip(leaves, totals, strict=True))


def lift(function: Callable[..., Any], config: TrainingConfig, model: nn.Module) -> Callable[..., Any]:
    """Makes a function of one member a function of a stack. A stack of one does without `vmap`, which costs time."""

    def one(*args: Any) -> Any:
        return function(config, model, *args)

    def stacked(*args: Any) -> Any:
        if next(iter(args[0].values())).shape[0] > 1:
            return vmap(one)(*args)
        single = one(*tree_map(lambda value: value[0], args))
        return tree_map(lambda value: value[None], single)

    return stacked
