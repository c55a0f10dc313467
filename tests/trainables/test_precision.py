"""Precision bf16: where it is used, where it is not, and how its results differ from float32."""

import numpy as np
import pytest
import torch
from members import member
from torch import nn

from trainables.data import Images
from trainables.diagnostics import measure
from trainables.ieee import ieee_float32
from trainables.models.normalization import BatchNorm
from trainables.objective import call
from trainables.packing.cohort import Cohort

NOISE = np.random.default_rng(0).integers(0, 256, (60, 3, 32, 32), dtype=np.uint8)
DENSE = np.ascontiguousarray(NOISE[:, :1, :8, :8])
STRIDED = {
    "encoder": {"name": "strided", "channels": (2, 3, 4, 5)},
    "decoder": {"name": "strided", "channels": (5, 4, 3, 2)},
}


def configs(precision: str, **changes):
    return [member("gaussian", "reparameterization", precision=precision, seed=s, **changes) for s in range(2)]


def trained(precision: str, pixels: np.ndarray = DENSE, dtype: torch.dtype = torch.float32, **changes):
    own = configs(precision, batch_size=10, epochs=2, **changes)
    cohort = Cohort(own, Images(pixels[:50], pixels[50:]), dtype=dtype, packed=True)
    for _ in range(2):
        metrics = cohort.train_epoch()
    return cohort, metrics


def test_the_precision_is_part_of_the_key_and_of_the_shape():
    (full, _), (lower, _) = configs("float32"), configs("bf16")
    assert full.key() != lower.key()
    assert full.shape_key() != lower.shape_key()
    assert full.model_copy(update={"precision": "bf16"}) == lower


@pytest.mark.parametrize(("pixels", "changes"), [(DENSE, {}), (NOISE, STRIDED)], ids=["mlp", "strided"])
def test_numbers_differ_by_roundings_of_bf16(pixels, changes):
    (_, full), (cohort, lower) = trained("float32", pixels, **changes), trained("bf16", pixels, **changes)
    error = np.abs(lower["elbo"] / full["elbo"] - 1)
    assert error.max() < 2e-2
    assert error.min() > 1e-7  # the computations differ
    state = cohort.members.state()
    assert {value.dtype for name, value in state.items() if not name.endswith((".frozen", "diverged_epoch"))} == {
        torch.float32
    }


def test_only_float32_is_lowered():
    (_, full), (_, lower) = trained("float32", dtype=torch.float64), trained("bf16", dtype=torch.float64)
    assert full["elbo"].tolist() == lower["elbo"].tolist()


class Probe(nn.Module):
    """A network with one linear layer; records the dtype of its computation."""

    def __init__(self, precision: str):
        super().__init__()
        self.part = nn.Linear(3, 2)
        self.precision, self.seen = precision, torch.float64
        self.part.register_forward_hook(self._look)

    def _look(self, module, args, output):
        self.seen = output.dtype


@pytest.mark.parametrize(("precision", "inside"), [("float32", torch.float32), ("bf16", torch.bfloat16)])
def test_networks_compute_in_the_precision_and_give_float32(precision, inside):
    probe = Probe(precision)
    tensors = {f"part.{name}": value.detach().requires_grad_() for name, value in probe.part.named_parameters()}
    output = call(probe, "part", tensors, torch.ones(4, 3))  # pyright: ignore[reportArgumentType]
    assert output.dtype == torch.float32
    assert probe.seen == inside
    gradients = torch.autograd.grad(output.sum(), list(tensors.values()))
    assert {gradient.dtype for gradient in gradients} == {torch.float32}


def test_batch_normalization_keeps_its_statistics_in_float32():
    layer = BatchNorm(2)
    x = 100 + torch.randn(50, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    assert layer(x.bfloat16()).dtype == torch.float32
    assert layer.running_mean.dtype == torch.float32
    torch.testing.assert_close(layer.running_mean, 0.1 * x.bfloat16().float().mean((0, 2, 3)))


# --- float32 is IEEE float32 -----------------------------------------------------------------------------------------


def lowered() -> tuple[bool, str]:
    """Whether cuDNN may compute float32 in tf32, and the precision of float32 matrix products."""
    return torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()


@pytest.fixture
def told_to_lower():
    before = lowered()
    torch.backends.cudnn.allow_tf32 = True
    torch.set_float32_matmul_precision("medium")
    yield lowered()
    torch.backends.cudnn.allow_tf32 = before[0]
    torch.set_float32_matmul_precision(before[1])


@pytest.mark.parametrize("what", ["train_epoch", "test_metrics", "measure"])
def test_nothing_is_lowered_unasked(what, told_to_lower, monkeypatch):
    cohort = Cohort(configs("float32"), Images(DENSE[:50], DENSE[50:], DENSE[50:]))
    seen = set()

    def look(*args, **options):
        seen.add(lowered())
        return call(*args, **options)

    monkeypatch.setattr("trainables.objective.call", look)
    assert told_to_lower == (True, "medium")
    measure(cohort, ["iw_bound"], draws=2) if what == "measure" else getattr(cohort, what)()
    assert seen == {(False, "highest")}
    assert lowered() == told_to_lower


def test_settings_are_put_back_after_an_error(told_to_lower):
    @ieee_float32()
    def fails():
        raise ZeroDivisionError(lowered())

    with pytest.raises(ZeroDivisionError, match="False, 'highest'"):
        fails()
    assert lowered() == told_to_lower
