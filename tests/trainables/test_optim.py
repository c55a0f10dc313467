"""The stacked optimizers compared with `torch.optim`, one member at a time."""

import pytest
import torch

from trainables.optimizers import OPTIMIZERS
from trainables.packing.optim import Group

KNOBS = {
    "lr": [1e-3, 3e-2, 1e-4, 5e-3],
    "beta1": [0.9, 0.5, 0.0, 0.95],
    "beta2": [0.999, 0.95, 0.9, 0.5],
    "eps": [1e-8, 1e-3, 1e-6, 1e-8],
    "weight_decay": [0.0, 1e-1, 1e-2, 3.0],
}
TORCH = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "radam": torch.optim.RAdam}
M, P, STEPS = 4, 7, 100
FIRST = torch.tensor([0])


def gradients(dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(STEPS, M, P, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)


def start(dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(M, P, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)


def knobs(**changes: list[float]) -> dict[str, torch.Tensor]:
    return {name: torch.tensor(values, dtype=torch.float64) for name, values in (KNOBS | changes).items()}


def stacked(name: str, dtype: torch.dtype = torch.float64, *, shift: int = 0, **changes: list[float]) -> torch.Tensor:
    """The trajectory [STEPS, M, P] of the stacked optimizer; `shift` gives it wrong step numbers."""
    group = Group({"p": start(dtype)})
    plan = OPTIMIZERS[name].coefficients(knobs(**changes), range(1 + shift, STEPS + 1 + shift), dtype=dtype)
    path = []
    for step, gradient in enumerate(gradients(dtype)):
        group.of(slice(None)).update(gradient.clone(), plan.at(torch.tensor([step])))
        path.append(group.flat.clone())
    return torch.stack(path)


def reference(name: str, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """The trajectory [STEPS, M, P] of M separate `torch.optim` optimizers."""
    columns = []
    for member in range(M):
        own = {knob: values[member] for knob, values in KNOBS.items()}
        p = start(dtype)[member].clone().requires_grad_()
        optimizer = TORCH[name](
            [p], lr=own["lr"], betas=(own["beta1"], own["beta2"]), eps=own["eps"], weight_decay=own["weight_decay"]
        )
        path = []
        for gradient in gradients(dtype)[:, member]:
            p.grad = gradient.clone()
            optimizer.step()
            path.append(p.detach().clone())
        columns.append(torch.stack(path))
    return torch.stack(columns, dim=1)


def error(got: torch.Tensor, want: torch.Tensor) -> torch.Tensor:
    """The largest difference of each member [M], relative to its movement."""
    return (got - want).abs().amax((0, 2)) / (want - start()).abs().amax((0, 2))


@pytest.mark.parametrize("name", sorted(TORCH))
def test_trajectory_is_that_of_torch(name):
    assert error(stacked(name), reference(name)).max() < 1e-10


@pytest.mark.parametrize("name", sorted(TORCH))
def test_float32_is_as_exact_as_torch(name):
    ours = error(stacked(name, torch.float32).double(), reference(name))
    theirs = error(reference(name, torch.float32).double(), reference(name))
    assert (ours / theirs).max() < 2


def rate_error(knob_dtype: torch.dtype) -> float:
    """The largest relative error of RAdam's rates in float32, computed from knobs of a given dtype."""
    exact = OPTIMIZERS["radam"].coefficients(knobs(), range(1, STEPS + 1), dtype=torch.float64)
    own = {knob: value.to(knob_dtype) for knob, value in knobs().items()}
    rounded = OPTIMIZERS["radam"].coefficients(own, range(1, STEPS + 1), dtype=torch.float32)
    return float((rounded.rate / exact.rate - 1).abs().max())


def test_rates_lose_nothing_but_the_last_rounding():
    assert rate_error(torch.float64) < 1e-7
    assert rate_error(torch.float32) > 1e-3  # cancellation in the length of RAdam's moving average


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("adam", {"shift": 1}),
        ("radam", {"shift": 1}),
        ("adam", {"eps": [0.0] * M}),
        ("radam", {"beta1": [0.9] * M}),
        ("adamw", {"weight_decay": [0.0] * M}),
        ("adam", {"beta2": [0.999] * M}),
    ],
)
def test_a_wrong_variant_is_rejected(name, wrong):
    assert error(stacked(name, **wrong), reference(name)).max() > 1e-3


def test_the_three_kinds_differ():
    assert error(stacked("adamw"), reference("adam")).max() > 1e-2
    assert error(stacked("radam"), reference("adam")).max() > 1e-2


def test_weight_decay_of_adamw_is_decoupled():
    # With a zero gradient, a step of AdamW shrinks by lr * decay; Adam would normalize the decay to a step of lr.
    group = Group({"p": start()})
    step = OPTIMIZERS["adamw"].coefficients(knobs(), range(1, 2), dtype=torch.float64).at(FIRST)
    group.of(slice(None)).update(torch.zeros(M, P, dtype=torch.float64), step)
    shrink = 1 - knobs()["lr"] * knobs()["weight_decay"]
    torch.testing.assert_close(group.flat, start() * shrink[:, None], rtol=1e-15, atol=0)


def test_radam_covers_both_phases():
    adapts = OPTIMIZERS["radam"].coefficients(knobs(), range(1, 101), dtype=torch.float64).root[..., 0]
    # Liu et al. 2020: the variance is tractable from step 6 on for beta2 = 0.999, as in torch, never for beta2 = 0.5.
    assert adapts[:5, 0].eq(0).all()
    assert adapts[5:, 0].eq(1).all()
    assert adapts[:, 3].eq(0).all()


@pytest.mark.parametrize("name", sorted(TORCH))
def test_frozen_members_do_not_move_and_others_do(name):
    group = Group({"p": start()})
    frozen = torch.tensor([True, False, True, False])
    free, held = (
        OPTIMIZERS[name].coefficients(knobs(), range(1, STEPS + 1), dtype=torch.float64, frozen=which)
        for which in (None, frozen)
    )
    for step in range(50):
        group.of(slice(None)).update(gradients()[step].clone(), free.at(torch.tensor([step])))
    before = group.flat.clone()
    for step in range(50, STEPS):  # momentum and decay must not act either
        group.of(slice(None)).update(gradients()[step].clone(), held.at(torch.tensor([step])))
    assert torch.equal(group.flat[frozen], before[frozen])
    torch.testing.assert_close(group.flat[~frozen], stacked(name)[-1][~frozen], rtol=1e-14, atol=1e-14)


def test_update_touches_only_its_members():
    group, before = Group({"p": start()}), start()
    step = (
        OPTIMIZERS["adam"]
        .coefficients({k: v[1:3] for k, v in knobs().items()}, range(1, 2), dtype=torch.float64)
        .at(FIRST)
    )
    group.of(slice(1, 3)).update(gradients()[0, 1:3].clone(), step)
    assert torch.equal(group.flat[[0, 3]], before[[0, 3]])
    torch.testing.assert_close(group.flat[1:3], stacked("adam")[0, 1:3], rtol=1e-14, atol=1e-14)


def test_named_views_share_memory_with_the_flat_parameters():
    stacked_parameters = {"weight": torch.randn(2, 3, 4), "bias": torch.randn(2, 3), "scale": torch.randn(2)}
    group = Group(stacked_parameters)
    views = group.named()
    assert list(views) == list(stacked_parameters)
    for name, value in stacked_parameters.items():
        assert torch.equal(views[name], value)
    group.flat.zero_()
    assert all(view.eq(0).all() for view in views.values())
