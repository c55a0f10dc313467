import shutil

import pytest
from scripted import SMALL

from search_spaces import get_sweep, list_sweeps
from sweeps.driver.driver import Driver
from sweeps.errors import UserError
from sweeps.planning import disk_space
from sweeps.planning.plan import Member, Plan
from trainables.cost.size import checkpoint_bytes, parameters
from trainables.data import load
from trainables.packing.cohort import Cohort
from trainables.training import CohortTraining

SHAPES = {
    member.config.shape_key(): member.config
    for member in (m for members in Plan(get_sweep("quickstart")).members.values() for m in members)
}


@pytest.mark.parametrize("ended", [False, True])
@pytest.mark.parametrize("config", SHAPES.values(), ids=lambda config: config.estimator.name)
def test_a_checkpoint_is_as_large_as_foretold(config, ended, tmp_path):
    one = config.model_copy(update={"epochs": 1})
    training = CohortTraining([one, one.model_copy(update={"seed": 1})], device="cpu", data_dir=tmp_path)
    assert list(training) == [1] if ended else training.cohort.epoch == 0
    foretold = 2 * checkpoint_bytes(one, load("digits", tmp_path).image_shape, ended=ended)
    assert foretold <= len(training.checkpoint()) <= 1.1 * foretold


def test_ended_members_of_other_shapes_need_a_third_of_what_members_in_training_need(tmp_path):
    small, *_ = SHAPES.values()
    large = small.model_copy(update={"encoder": small.encoder.model_copy(update={"hidden": (1024, 1024)})})
    few, many, largest = (
        disk_space.needed_bytes([Member("study", {}, config)] * count, tmp_path)
        for config, count in ((small, 1), (small, 101), (large, 100))
    )
    one = (many - few) / 100  # in training a cohort needs twice its checkpoint
    both = disk_space.needed_bytes([*[Member("study", {}, small)] * 100, *[Member("study", {}, large)] * 100], tmp_path)
    weights = checkpoint_bytes(small, (1, 8, 8), ended=True)
    assert (both - largest) / 100 == pytest.approx(one - 5 * weights, rel=0.01)


def test_parameters_are_those_of_the_model(tmp_path):
    config = next(iter(SHAPES.values()))
    images = load("digits", tmp_path)
    cohort = Cohort([config], images)
    assert parameters(config, images.image_shape) == sum(
        group.flat.shape[1] for group in cohort.members.groups.values()
    )


@pytest.mark.parametrize("name", list_sweeps())
def test_every_model_of_every_sweep_can_be_sized(name):
    plan = Plan(get_sweep(name))
    configs = [plan.example(study).config for study in plan.studies]
    assert all(10**3 < parameters(config, (1, 32, 32)) < 10**9 for config in configs)


def test_what_is_left_counts_suggestions_to_be_made(ledger, drain):
    driver = Driver(Plan(SMALL), ledger, retry_failed=False)
    assert len(driver.left()) == 15
    drain(driver)
    assert driver.left() == []


def test_a_plan_that_does_not_fit_is_refused_in_one_line_with_both_numbers(storage, tmp_path, monkeypatch):
    members = Plan(SMALL).members["grid"]
    need = disk_space.needed_bytes(members, tmp_path)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=need))
    disk_space.check(storage, members, tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=need - 10**6))
    with pytest.raises(UserError, match=r"has \d+ MB free, but 8 trainings need about \d+ MB") as caught:
        disk_space.check(storage, members, tmp_path)
    assert "\n" not in str(caught.value)


def test_every_member_and_epoch_needs_space(tmp_path):
    few, many = (Plan(SMALL).members["grid"][:n] for n in (1, 8))
    assert disk_space.needed_bytes(few, tmp_path) < disk_space.needed_bytes(many, tmp_path)
    longer = [m.__class__(m.study, m.labels, m.config.model_copy(update={"epochs": 100})) for m in few]
    assert disk_space.needed_bytes(few, tmp_path) < disk_space.needed_bytes(longer, tmp_path)
