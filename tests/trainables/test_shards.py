"""Data-parallel training in two and three real processes over gloo, compared with one process."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from members import member
from torch.multiprocessing.spawn import spawn
from torch.testing import assert_close

from trainables.config import TrainingConfig
from trainables.data import Images
from trainables.estimators import ESTIMATORS
from trainables.models.normalization import BatchNorm
from trainables.packing.cohort import Cohort
from trainables.shards import Shards

SMALL = {"name": "strided", "channels": (4, 4, 4, 4)}
FIXED = {"name": "gaussian_fixed", "variance": 0.05}
COLOURS = np.random.default_rng(0).integers(0, 256, (28, 3, 32, 32), dtype=np.uint8)
IMAGES = Images(train=COLOURS[:22], validation=COLOURS[22:])
"""With batches of 10 the last one has two images, so one of three processes has none."""


def estimators() -> list[TrainingConfig]:
    """Every estimator once, on a latent family that it accepts."""
    return [
        member(min(estimator.families), name, batch_size=10, epochs=2) for name, estimator in sorted(ESTIMATORS.items())
    ]


def normalized(batch_size: int, seed: int = 0) -> TrainingConfig:
    """Convolutions with batch normalization."""
    parts = {"encoder": SMALL, "decoder": SMALL, "batch_size": batch_size, "epochs": 2, "seed": seed}
    return member("gaussian", "reparameterization", **parts)


CASES: dict[str, list[TrainingConfig]] = {
    "two members with batch normalization": [normalized(10, seed) for seed in (0, 1)],
    "even batches": [normalized(11)],
    "a guide, frozen in different epochs": [
        member(
            "gaussian",
            "reparameterization",
            encoder=SMALL,
            likelihood=FIXED,
            guide={"likelihood": FIXED, "freeze_epoch": epoch},
            batch_size=10,
            epochs=2,
        )
        for epoch in (1, 2)
    ],
    **{config.estimator.name: [config] for config in estimators()},
}


def trained(configs: list[TrainingConfig], shards: Shards) -> list:
    """Metrics of every epoch, then the state, in float64, so that only the order of sums differs."""
    cohort = Cohort(configs, IMAGES, dtype=torch.float64, packed=False, compiled=False, shards=shards)
    metrics = [cohort.train_epoch() for _ in range(configs[0].epochs)]
    return [metrics, cohort.members.state()]


def in_group(rank: int, count: int, folder: str, normalize_apart: bool) -> None:
    """Joins the group, trains every case and writes the results; runs in each process."""
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    if normalize_apart:
        BatchNorm.shards = property(lambda self: Shards(), lambda self, value: None)  # pyright: ignore
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=count)
    cases = {"even batches": CASES["even batches"]} if normalize_apart else CASES
    results = {name: trained(configs, Shards(rank, count)) for name, configs in cases.items()}
    Path(folder, f"{rank}.pickle").write_bytes(pickle.dumps(results))
    dist.destroy_process_group()


def spread_over(count: int, folder: Path, normalize_apart: bool = False) -> list[dict[str, list]]:
    """The results of all processes of a group."""
    spawn(in_group, (count, str(folder), normalize_apart), nprocs=count)
    return [pickle.loads((folder / f"{rank}.pickle").read_bytes()) for rank in range(count)]


@pytest.fixture(scope="module")
def groups(tmp_path_factory):
    """Results by number of processes."""
    return {count: spread_over(count, tmp_path_factory.mktemp(f"of-{count}")) for count in (2, 3)}


@pytest.fixture(scope="module")
def alone() -> dict[str, list]:
    return {name: trained(configs, Shards()) for name, configs in CASES.items()}


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("case", CASES)
def test_processes_that_share_batches_compute_what_one_computes(groups, alone, case, count):
    for found in groups[count]:
        assert_close(found[case], alone[case], rtol=1e-9, atol=1e-11, equal_nan=True)


@pytest.mark.parametrize("case", CASES)
def test_all_processes_hold_the_same_numbers(groups, case):
    first, *others = groups[3]
    for other in others:
        assert_close(other[case], first[case], rtol=0, atol=0, equal_nan=True)


def test_the_comparison_tells_batches_that_are_normalized_apart(alone, tmp_path):
    case = "even batches"
    apart = spread_over(2, tmp_path, normalize_apart=True)[0][case]
    with pytest.raises(AssertionError, match="not close"):
        assert_close(apart, alone[case], rtol=1e-4, atol=1e-4)


def test_shares_of_a_batch_are_all_of_it_and_nearly_equal():
    for rows in range(12):
        for count in range(1, 6):
            shares = [range(rows)[Shards(rank, count).of(rows)] for rank in range(count)]
            assert [row for share in shares for row in share] == list(range(rows))
            assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_what_the_first_process_raises_is_raised_in_all(tmp_path):
    spawn(refused, (str(tmp_path),), nprocs=2)
    assert [(tmp_path / str(rank)).read_text() for rank in (0, 1)] == ["no space left"] * 2


def refused(rank: int, folder: str) -> None:
    """Joins a group, and asserts that an error of the first process reaches this one."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)

    def write() -> None:
        assert rank == 0  # the others do not call it
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space") as raised:
        Shards(rank, 2).from_first(write)
    Path(folder, str(rank)).write_text(str(raised.value))
    dist.destroy_process_group()


@pytest.mark.parametrize(("packed", "compiled"), [(True, None), (None, True)])
def test_members_that_processes_share_are_neither_packed_nor_compiled(packed, compiled):
    with pytest.raises(ValueError, match="neither packed nor compiled"):
        Cohort(CASES["straight_through"], IMAGES, shards=Shards(0, 2), packed=packed, compiled=compiled)
