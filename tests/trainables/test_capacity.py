"""The memory that cohorts need, compared with counts by hand."""

import numpy as np
import pytest
import torch
from members import member

from trainables.cost import memory as capacity
from trainables.cost.memory import Footprint, Live, footprint
from trainables.data import Images
from trainables.data.sizes import Size
from trainables.packing.cohort import Cohort

CPU = torch.device("cpu")
DIGITS = Size((1, 8, 8), 300, 60)


def test_tensors_are_counted_while_they_live():
    with Live() as live:
        first = torch.zeros(1000)
        second = first + 1  # 8,000 bytes together
        del first
        third = second[10:] * 2  # adds at most 8,000 bytes, after the first is freed
        view = third.view(10, -1).T
    assert live.peak == 8000
    assert view.shape == (99, 10)


def test_the_largest_cohort_that_fits():
    footprint = Footprint(fixed=100, member=30)
    assert footprint.largest(1000) == 23  # (800 - 100) / 30
    assert footprint.largest(0) == 1


@pytest.mark.parametrize("hidden", [(300, 200), (600, 400)])
def test_a_member_needs_its_weights_moments_and_gradients_at_least(hidden):
    config = member("gaussian", "reparameterization", encoder={"name": "mlp", "hidden": hidden}, batch_size=10)
    own = footprint(config, DIGITS, CPU, packed=True)
    (parameters,) = {
        sum(
            g.flat.shape[1]
            for g in Cohort([config], Images(*[np.zeros((1, 1, 8, 8), np.uint8)] * 2)).members.groups.values()
        )
    }
    assert 4 * 4 * parameters < own.member < 12 * 4 * parameters + 4_000_000


def test_members_trained_in_turn_share_what_a_step_needs():
    config = member("gaussian", "reparameterization", encoder={"name": "conv3", "channels": 8}, batch_size=100)
    packed, in_turn = (footprint(config, DIGITS, CPU, packed=flag) for flag in (True, False))
    assert in_turn.member < packed.member / 3


def test_the_footprint_tells_what_a_larger_cohort_takes(monkeypatch):
    config = member("categorical", "decoupled_st_gs", batch_size=100)
    own = footprint(config, DIGITS, CPU, packed=True)
    peaks = {}
    for members in (4, 8):
        images = Images(*(np.zeros((n, 1, 8, 8), np.uint8) for n in (DIGITS.train, DIGITS.validation)))
        configs = [config.model_copy(update={"seed": seed}) for seed in range(members)]
        with Live() as live:
            Cohort(configs, images, packed=True).train_epoch()
        peaks[members] = live.peak
    for members, peak in peaks.items():
        assert peak <= own.fixed + members * own.member <= 2 * peak


def test_an_order_of_the_images_takes_no_more_than_is_said():
    from trainables.streams import Purpose, Streams

    with Live() as live:
        Streams([1, 2]).permutation(5000, Purpose.ORDER, epoch=1)
    assert capacity.ORDER_BYTES / 2 < live.peak / 10_000 <= capacity.ORDER_BYTES


def test_free_memory_is_that_of_the_machine():
    assert 2**20 < capacity.free_bytes(CPU) < 2**50
