"""Asks cohorts to stop, in this process and without Ray."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from members import member

from trainables import training, worker
from trainables.checkpoint import CheckpointFile, read_checkpoint
from trainables.reports import Outcome, Report

EPOCHS = 5
CONFIGS = [member(epochs=EPOCHS, seed=seed) for seed in range(2)]


@pytest.fixture
def trained(monkeypatch) -> list[int]:
    """The epochs that were trained, in order; requests to stop take effect after each epoch."""
    epochs: list[int] = []

    class Noted(training.CohortTraining):
        def __iter__(self) -> Iterator[int]:
            for epoch in super().__iter__():
                epochs.append(epoch)
                yield epoch

    monkeypatch.setattr(worker, "CohortTraining", Noted)
    monkeypatch.setattr(worker, "STOP_EVERY_S", 0.0)
    return epochs


def train(folder: Path, stop: Callable[[], bool] = lambda: False) -> list[Report]:
    """Trains a cohort with a checkpoint every minute; returns its reports."""
    task = worker.Task(
        key="k",
        configs=[],
        device="cpu",
        data_dir="nowhere",
        checkpoints=str(folder),
        checkpoint_every_s=60.0,
        workers=1,
        threads=1,
        scratch=str(folder),
    )
    reports: list[Report] = []
    worker.train_cohort(task, CONFIGS, reports.append, name="members", stop=stop)
    return reports


def outcomes(reports: list[Report]) -> list[Outcome]:
    """The outcomes of the last report, without the time that the training took."""
    found = reports[-1].outcomes
    assert found is not None
    return [outcome.model_copy(update={"wall_s": 0.0}) for outcome in found]


@pytest.mark.parametrize("epoch", [1, 3])
def test_a_cohort_that_is_asked_to_stop_saves_first_and_goes_on_without_training_an_epoch_twice(
    tmp_path, trained, epoch
):
    whole = outcomes(train(tmp_path / "whole"))
    trained.clear()

    reports = train(tmp_path / "stopped", stop=lambda: trained[-1:] == [epoch])
    assert reports[-1] == Report(interrupted=True)
    content = CheckpointFile(str(tmp_path / "stopped"), "members").read()
    assert content is not None
    assert read_checkpoint(content)[0].epoch == epoch

    assert outcomes(train(tmp_path / "stopped")) == whole
    assert trained == list(range(1, EPOCHS + 1))


def test_a_cohort_at_its_end_ends_however_often_it_is_asked_to_stop(tmp_path, trained):
    reports = train(tmp_path, stop=lambda: trained[-1:] == [EPOCHS])
    assert [outcome.status for outcome in outcomes(reports)] == ["finished", "finished"]
    assert not reports[-1].interrupted


def test_a_cohort_whose_run_was_interrupted_before_it_began_trains_nothing(tmp_path, trained):
    (report,) = train(tmp_path, stop=lambda: True)
    assert report.interrupted
    assert trained == []
    assert list(tmp_path.iterdir()) == []
