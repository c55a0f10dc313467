import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from members import member

from trainables.checkpoint import read_checkpoint
from trainables.halving import Halving
from trainables.training import CohortTraining

BY_BITS = Halving("bits_per_dim", "min", 2)


def test_rungs_end_at_the_whole_training():
    assert Halving("elbo", "max", 3).rungs(9, 27) == {3: 3, 9: 1}
    assert BY_BITS.rungs(8, 8) == {1: 4, 2: 2, 4: 1}
    assert BY_BITS.rungs(1, 8) == {}, "one member has no rival"
    assert Halving("elbo", "max", 3).rungs(100, 2) == {}, "nothing can be told within so few epochs"


@given(st.integers(1, 300), st.integers(1, 300), st.integers(2, 5))
def test_fewer_and_fewer_members_train_longer_and_longer(members, epochs, factor):
    rungs = Halving("elbo", "max", factor).rungs(members, epochs)
    ends, counts = list(rungs), list(rungs.values())
    assert ends == sorted(set(ends))
    assert all(0 < end < epochs for end in ends)
    assert counts == sorted(counts, reverse=True)
    assert all(0 < count < members for count in counts)


@pytest.mark.parametrize(("mode", "best"), [("min", [1, 3]), ("max", [0, 2])])
def test_the_best_are_by_the_metric_and_what_is_no_number_is_worst(mode, best):
    values = np.array([3.0, 1.0, 5.0, 2.0, np.nan, -np.inf if mode == "max" else np.inf])
    assert Halving("x", mode, 2).best(values, 2) == best


def cohort(halving=None):
    rates = (3e-3, 1e-5, 1e-2, 1e-4, 1e-6)
    configs = [member(epochs=4, optim={"name": "adam", "lr": lr}) for lr in rates]
    return CohortTraining(configs, device="cpu", data_dir=".", halving=halving)


@pytest.fixture(scope="module")
def whole():
    """The results of all members without early stopping."""
    training = cohort()
    list(training)
    return training.results()


def test_survivors_train_as_if_nobody_had_been_stopped(whole):
    training = cohort(BY_BITS)
    list(training)
    results = training.results()
    assert [result.status for result in results] == ["finished" if r.epochs == 4 else "stopped" for r in results]
    assert sorted(result.epochs for result in results) == [1, 1, 1, 2, 4], "5 -> 2 -> 1"
    for alone, halved in zip(whole, results, strict=True):
        for name, values in halved.history.items():
            np.testing.assert_allclose(values, alone.history[name][: halved.epochs], rtol=1e-5)
    after = {epoch: [r.history["bits_per_dim"][epoch - 1] for r in whole] for epoch in (1, 2)}
    survivors = [index for index, result in enumerate(results) if result.epochs > 1]
    assert survivors == sorted(np.argsort(after[1])[:2]), "the two best after the first epoch"
    assert results[min(survivors, key=lambda i: after[2][i])].status == "finished"


def test_a_checkpoint_knows_who_was_stopped():
    training = cohort(BY_BITS)
    epochs = iter(training)
    next(epochs)
    saved = training.checkpoint()
    list(epochs)
    header, tensors = read_checkpoint(saved)
    assert len(header.kept) == 2
    assert len(tensors["diverged_epoch"]) == 2
    for position, key in enumerate(header.keys):
        if position in header.kept:
            assert header.kept[header.member(key)] == position
        else:
            with pytest.raises(KeyError):
                header.member(key)
    again = cohort(BY_BITS)
    again.restore(saved)
    list(again)
    assert [r.history for r in again.results()] == [r.history for r in training.results()]
    assert [r.status for r in again.results()] == [r.status for r in training.results()]


def test_the_stopped_cost_nothing_any_more():
    training = cohort(BY_BITS)
    assert [len(training.cohort) for _ in training] == [2, 1, 1, 1]
