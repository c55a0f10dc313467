"""Compiled steps equal eager ones, and no step waits for the value of a tensor."""

import gc
import weakref

import numpy as np
import pytest
import torch
from members import LATENTS, member
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from trainables.config import TrainingConfig
from trainables.data import Images
from trainables.estimators import ESTIMATORS
from trainables.packing import compiled
from trainables.packing.cohort import Cohort

PAIRS = [
    pytest.param(family, name, id=f"{name}-{family}")
    for name, estimator in sorted(ESTIMATORS.items())
    for family in sorted(estimator.families)
]
NOISE = np.random.default_rng(0).integers(0, 256, (60, 3, 32, 32), dtype=np.uint8)


def images(train: int = 25, colours: int = 1, size: int = 8) -> Images:
    own = np.ascontiguousarray(NOISE[:, :colours, :size, :size])
    return Images(train=own[:train], validation=own[50:])


def members(count: int, *args, **changes) -> list[TrainingConfig]:
    common = {"batch_size": 10, "epochs": 3, "optim": {"name": "radam", "lr": 1e-3}} | changes
    return [member(*args, seed=seed, **common) for seed in range(count)]


def test_what_was_compiled_for_a_cohort_does_not_keep_it_in_memory(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda graph, **options: graph)  # runs the graph uncompiled
    kept: dict = {}
    monkeypatch.setattr(compiled, "_programs", kept)
    cohort = Cohort(members(2), images(), compiled=True)
    cohort.train_epoch()
    tensors = [weakref.ref(value) for group in cohort.members.groups.values() for value in (group.flat, group.mean)]
    assert kept
    assert all(reference() is not None for reference in tensors)
    del cohort
    gc.collect()
    assert [reference() for reference in tensors] == [None] * len(tensors)


# --- no step waits for a value ---------------------------------------------------------------------------------------


class Looks(TorchDispatchMode):
    """Counts how often a program waits for the value of a tensor; on a GPU each time drains the queue of kernels."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)
        return func(*args, **(kwargs or {}))


def looks(configs: list[TrainingConfig], train: int) -> int:
    cohort = Cohort(configs, images(train), packed=True)
    with Looks() as mode:
        cohort.train_epoch()
    return mode.count


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize(("family", "estimator"), PAIRS)
def test_no_step_looks_at_a_value(family, estimator, count):
    guide = {"freeze_epoch": 2} if family == "gaussian" else None
    configs = members(count, family, estimator, guide=guide)
    assert looks(configs, 40) == looks(configs, 10)  # four steps and one step


def test_a_step_that_looks_at_a_value_is_noticed(monkeypatch):
    from trainables.packing.step import Step

    honest = Step.__call__

    def curious(self, state, feed):
        honest(self, state, feed)
        assert state.loss.isfinite().all()

    configs = members(1)
    want = looks(configs, 40)
    monkeypatch.setattr(Step, "__call__", curious)
    assert looks(configs, 40) == want + 4


# --- compiled and eager ----------------------------------------------------------------------------------------------

DENSE = (1, 8)
KINDS = {
    "silent": (("gaussian", "silent"), {}, DENSE),
    "learned precision": (("bernoulli", "silent"), {"likelihood": {"name": "gaussian_precision"}}, DENSE),
    "categorical": (("categorical", "decoupled_st_gs"), {}, DENSE),
    "running baseline": (("bernoulli", "reinforce"), {}, DENSE),
    "binary pixels": (
        ("bernoulli", "gumbel_softmax"),
        {"likelihood": {"name": "bernoulli"}, "data": {"pixels": "binarize"}},
        DENSE,
    ),
    "guide": (("gaussian", "reparameterization"), {"guide": {"annealing_rate": 0.4, "freeze_epoch": 3}}, DENSE),
    "conv3 and conv5": (
        ("gaussian", "reparameterization"),
        {"encoder": {"name": "conv3", "channels": 2}, "decoder": {"name": "conv5", "channels": 2}},
        DENSE,
    ),
    "strided": (
        ("gaussian", "reparameterization"),
        {
            "encoder": {"name": "strided", "channels": (2, 3, 4, 5)},
            "decoder": {"name": "strided", "channels": (5, 4, 3, 2)},
            "likelihood": {"name": "gaussian_fixed", "variance": 1.0},
            "optim": {"name": "radam", "lr": 1e-5},
            "guide": {"freeze_epoch": 3},
        },
        (3, 32),
    ),
    "residual": (
        ("bernoulli", "straight_through"),
        {
            "latent": LATENTS["bernoulli"] | {"size": 8},
            "encoder": {"name": "residual", "channels": 3},
            "decoder": {"name": "residual", "channels": 3},
        },
        DENSE,
    ),
}


def three_epochs(name: str, count: int, *, compiled: bool) -> tuple[dict[str, np.ndarray], list[dict]]:
    args, changes, (colours, size) = KINDS[name]
    cohort = Cohort(
        members(count, *args, **changes),
        images(25, colours, size),
        dtype=torch.float64,
        packed=True,
        compiled=compiled,
    )
    for _ in range(3):
        metrics = cohort.train_epoch()
    return metrics, [cohort.members.state(), *(cohort.members.model_state(index) for index in range(count))]


def assert_alike(name: str, count: int) -> None:
    """Compares three epochs in float64, each of two full batches and a half one, compiled and eager."""
    got, want = (three_epochs(name, count, compiled=flag) for flag in (True, False))
    for metric, values in want[0].items():
        assert np.isfinite(values).all()
        np.testing.assert_allclose(got[0][metric], values, rtol=1e-9, atol=1e-12)
    assert_close(got[1], want[1], rtol=1e-7, atol=1e-9)


HEAVY = ("conv3 and conv5", "guide", "strided")


@pytest.mark.parametrize(
    ("name", "count"),
    [
        pytest.param(name, count, marks=[pytest.mark.slow] if name in HEAVY and count == 2 else [])
        for name in sorted(KINDS)
        for count in (1, 2)
    ],
)
def test_what_is_captured_is_the_step(monkeypatch, name, count):
    """Runs the recorded operations without Inductor."""
    graphs = []

    def recorded(graph, **options):
        # Kernels may return other strides than recorded. Inductor handles this; here `reshape` copies.
        for node in graph.graph.find_nodes(op="call_function", target=torch.ops.aten.view.default):
            node.target = torch.ops.aten.reshape.default
        graph.recompile()
        graphs.append(graph)
        return graph

    monkeypatch.setattr(compiled, "_programs", {})
    monkeypatch.setattr(torch, "compile", recorded)
    assert_alike(name, count)
    assert len(graphs) == (4 if "guide" in KINDS[name][1] else 2)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("name", "count"), [("categorical", 1), ("running baseline", 2), ("guide", 2), ("residual", 1), ("strided", 2)]
)
def test_compiled_is_eager(monkeypatch, name, count, recwarn):
    monkeypatch.setattr(compiled, "_programs", {})
    assert_alike(name, count)
    assert not [warning for warning in recwarn if "not compiled" in str(warning.message)]


def test_a_program_is_compiled_once_for_all_cohorts_of_its_shapes(monkeypatch):
    count, honest = [], compiled._compile
    monkeypatch.setattr(compiled, "_programs", {})
    monkeypatch.setattr(compiled, "_compile", lambda *args: count.append(1) or honest(*args))
    monkeypatch.setattr(torch, "compile", lambda graph, **options: graph)
    for seed in (0, 5):
        configs = [config.model_copy(update={"seed": seed + config.seed}) for config in members(2)]
        cohort = Cohort(configs, images(20), compiled=True, packed=False)
        cohort.train_epoch()
        cohort.train_epoch()
    assert len(count) == 1


def test_without_a_compiler_a_step_is_eager_and_says_so(monkeypatch):
    from torch._dynamo.exc import BackendCompilerFailed

    def failing(graph, **options):
        def run(*args):
            raise BackendCompilerFailed(compiled, RuntimeError("no compiler"), None)

        return run

    monkeypatch.setattr(compiled, "_programs", {})
    monkeypatch.setattr(torch, "compile", failing)
    cohort = Cohort(members(1), images(20), compiled=True)
    with pytest.warns(RuntimeWarning, match="not compiled"):
        got = cohort.train_epoch()
    want = Cohort(members(1), images(20), compiled=False).train_epoch()
    assert {name: value.tolist() for name, value in got.items()} == {n: v.tolist() for n, v in want.items()}


@pytest.mark.parametrize(("epochs", "expected"), [(1, False), (1_000_000, True)])
def test_long_trainings_are_compiled_on_a_cpu_where_there_is_a_compiler(monkeypatch, epochs, expected):
    configs = members(2, epochs=epochs)
    monkeypatch.setattr("shutil.which", lambda name: "/usr/bin/" + name)
    assert Cohort(configs, images()).compiled is False
    large = [c.model_copy(update={"encoder": c.encoder.model_copy(update={"hidden": (2000, 2000)})}) for c in configs]
    assert Cohort(large, images()).compiled is expected
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert Cohort(large, images()).compiled is False
