"""Sizes, rates and the estimated cost of a plan."""

import io
import re

import pytest
import torch
from rich.console import Console
from scripted import BASE, GRID, SMALL, row

from search_spaces import get_sweep
from search_spaces.space import Axis, Study, Sweep
from sweeps.errors import UserError
from sweeps.planning import known_rates
from sweeps.planning.estimate import estimate, size_of_sweep
from sweeps.planning.known_rates import Rates, file_of, known, measured_here
from sweeps.planning.plan import Overrides, Plan
from sweeps.planning.schedule import Workload, group
from sweeps.rates import rates
from sweeps.run import print_plan, run
from trainables import training
from trainables.config import TrainingConfig
from trainables.cost.steps import program_key
from trainables.cost.timing import Rate, measure
from trainables.data import DATASETS, DataError, load
from trainables.data.sizes import Size, size_of

RATE = Rate(step_s=0.5, evaluation_s=0.25, members=1)
DIGITS = DATASETS.sizes["digits"]


@pytest.mark.parametrize("name", sorted(DATASETS.sizes))
def test_declared_sizes_are_the_real_ones(name, real_data):
    try:
        images = load(name, real_data)
    except DataError as error:
        pytest.skip(str(error))
    test = 0 if images.test is None else len(images.test)
    assert Size(images.image_shape, len(images.train), len(images.validation), test) == size_of(name, real_data)


def test_seconds_count_steps_evaluations_and_measurements():
    config = TrainingConfig.model_validate(
        BASE | {"epochs": 10, "batch_size": 100, "diagnostics": {"gradient_variance": (1, 10)}}
    )
    assert RATE.seconds(config, DIGITS) == 10 * (15 * 0.5 + 4 * 0.25) + 2 * 100 * 0.5
    assert RATE.seconds(config, DIGITS.limited(150)) == 10 * (2 * 0.5 + 2 * 0.25) + 2 * 100 * 0.5


def test_programs_differ_by_what_a_step_does():
    one = TrainingConfig.model_validate(BASE)

    def changed(**changes):
        return program_key(TrainingConfig.model_validate(BASE | changes), DIGITS.image_shape)

    key = program_key(one, DIGITS.image_shape)
    assert changed(epochs=7, seed=3, optim={"name": "adam", "lr": 0.5}) == key
    assert changed(diagnostics={"gradient_variance": (1,)}, data={"name": "digits", "limit": 5}) == key
    assert changed(batch_size=7) != key
    assert changed(encoder={"name": "mlp", "hidden": (9,)}) != key
    assert program_key(one, (1, 28, 28)) != key


def test_a_rate_is_measured_by_training():
    slow = TrainingConfig.model_validate(BASE | {"encoder": {"name": "mlp", "hidden": (2000, 2000)}})
    fast = TrainingConfig.model_validate(BASE | {"encoder": {"name": "mlp", "hidden": (8,)}})
    found = [measure([config], (1, 8, 8), torch.device("cpu")) for config in (fast, slow)]
    assert found[0].step_s < found[1].step_s, "4 million weights against 500"


def estimated(storage, sweep=SMALL, rates=None, **overrides):
    plan = Plan(sweep, Overrides(**overrides))
    return estimate(plan, storage, rates=rates, slots=2, pack=None, data_dir=storage.local_path)


def everything(plan):
    shape = DIGITS.image_shape
    return {program_key(m.config, shape): RATE for study in plan.studies for m in plan.expected(study)}


def test_members_epochs_and_hours_are_of_what_is_left(storage, ledger):
    plan = Plan(SMALL)
    rates = Rates(machine="here", rates=everything(plan))
    *studies, total = estimated(storage, rates=rates)
    assert [(one.name, one.members, one.epochs) for one in studies] == [("grid", 8, 16), ("searched", 7, 14)]
    one_member = 2 * (3 * 0.5 + 1 * 0.25)
    assert total.hours == pytest.approx(15 * one_member / 3600 / 2)
    assert (total.members, total.done, total.epochs) == (15, 0, 30)
    assert total.bytes > 0
    ledger.append([row(member) for member in plan.members["grid"][:3]])
    *_, total = estimated(storage, rates=rates)
    assert (total.done, total.epochs) == (3, 24)
    assert total.hours == pytest.approx(12 * one_member / 3600 / 2)


def test_members_of_one_shape_whose_guides_end_at_other_epochs_take_other_hours(storage):
    parts = {"decoder": {"name": "mlp", "hidden": (8,)}, "estimator": {"name": "reparameterization"}}
    base = BASE | parts | {"epochs": 10, "guide": {}}

    def sweep(*annealing_rates: float) -> Sweep:
        grid = (Axis("guide.annealing_rate", annealing_rates),)
        return Sweep("guided", "", (Study(name="guided", title="", source="", base=base, grid=grid),))

    both = Plan(sweep(0.0, 0.5))
    rates = Rates(machine="here", rates=everything(both))
    assert len({member.shape for member in both.members["guided"]}) == 1
    total, always, briefly = (
        estimated(storage, one, rates)[-1].hours for one in (both.original, sweep(0.0), sweep(0.5))
    )
    assert total == pytest.approx(always + briefly)
    assert always == pytest.approx(10 * (3 * 0.5 + 1 * 0.25) / 3600 / 2)
    assert 0.1 * always < briefly < 0.99 * always


def test_a_plan_of_which_a_study_is_done_is_estimated_by_its_rates(storage, ledger):
    other = Study(name="other", title="", source="", base=BASE | {"batch_size": 100}, seeds=(0, 1))
    sweep = Sweep("two", "", (GRID, other))
    plan = Plan(sweep)
    ledger.append([row(member) for member in plan.members["grid"]])
    *_, total = estimated(storage, sweep, Rates(machine="here", rates=everything(plan)))
    assert (total.done, total.cohorts) == (8, 2)
    assert total.hours is not None


def test_what_was_not_measured_is_not_guessed(storage):
    plan = Plan(SMALL)
    other = {f"{key}x": rate for key, rate in everything(plan).items()}
    for found in (None, Rates(machine="here", rates=other)):
        assert all(one.hours is None for one in estimated(storage, rates=found))


def test_members_that_studies_share_count_once(storage):
    twin = Study(name="twin", title="", source="", base=BASE, grid=GRID.grid, seeds=GRID.seeds)
    *studies, total = estimated(storage, Sweep("twins", "", (GRID, twin)))
    assert [one.members for one in studies] == [8, 8]
    assert total.members == 8
    assert total.epochs == 16


def test_estimating_writes_nothing(storage):
    before = sorted(storage.local_path.parent.rglob("*"))
    estimated(storage)
    assert sorted(storage.local_path.parent.rglob("*")) == before


def test_a_network_that_does_not_go_with_its_images_is_told(storage):
    wrong = Study(name="wrong", title="", source="", base=BASE | {"encoder": {"name": "strided"}})
    with pytest.raises(UserError, match=r"study 'wrong' on 'digits': .*32"):
        estimated(storage, Sweep("wrong", "", (wrong,)))


def test_measured_rates_are_kept_and_used(command, tmp_path):
    code, out, err = command(rates, "quickstart", "--only", "search", "--device", "cpu")
    assert (code, err) == (0, "")
    assert "Measured 1 kinds of training on" in out
    code, out, err = command(run, "quickstart", "--only", "search", "--plan", "--device", "cpu")
    assert code == 0
    assert "rates measured on" in out
    assert "?" not in out.splitlines()[1]
    path = file_of("cpu", tmp_path / "runs")
    path.write_text("{")
    code, _, err = command(run, "quickstart", "--plan", "--device", "cpu")
    assert code == 2
    assert "damaged" in err


def test_a_storage_that_cannot_be_made_is_told_before_anything_is_measured(command, tmp_path, monkeypatch):
    monkeypatch.setattr("sweeps.rates.measured", lambda *_: pytest.fail("measured"))
    (tmp_path / "file").touch()
    code, _, err = command(rates, "quickstart", "--storage", str(tmp_path / "file" / "x"))
    assert code == 2
    assert err == f"command: --storage '{tmp_path}/file/x' cannot be made: Not a directory\n"


def test_those_that_come_along_are_of_paper_grid():
    along = known("cpu", None)
    assert along is not None
    assert len(along.rates) > 20
    assert "thread" in along.machine


def test_rates_measured_here_come_before_those_that_come_along(tmp_path):
    along = known("cpu", None)
    assert along is not None
    replaced = next(iter(along.rates))
    file_of("cpu", tmp_path).write_text(Rates(machine="here", rates={replaced: RATE, "new": RATE}).model_dump_json())
    merged = known("cpu", tmp_path)
    assert merged is not None
    assert merged.rates == dict(along.rates) | {replaced: RATE, "new": RATE}
    assert merged.rates[replaced] != along.rates[replaced]
    assert merged.machine.startswith("here ")
    assert along.machine in merged.machine
    own = measured_here("cpu", tmp_path)
    assert own is not None
    assert set(own.rates) == {replaced, "new"}


OTHER = Study(name="other", title="", source="", base=BASE | {"encoder": {"name": "mlp", "hidden": (9,)}}, seeds=(0, 1))
THREE = Sweep("small", "", (*SMALL.studies, OTHER))


def test_hours_are_of_the_members_whose_kind_was_measured(storage):
    *studies, total = estimated(storage, THREE, Rates(machine="here", rates=everything(Plan(SMALL))))
    assert [(one.name, one.unmeasured) for one in studies] == [("grid", 0), ("searched", 0), ("other", 2)]
    assert [one.hours is None for one in studies] == [False, False, True]
    assert (total.unmeasured, total.hours) == (2, pytest.approx(sum(one.hours or 0 for one in studies)))


@pytest.mark.parametrize(("device", "gpu_hours"), [("cpu", False), ("cuda", True)])
def test_a_plan_names_what_was_not_measured(storage, monkeypatch, device, gpu_hours):
    rates = Rates(machine="here", rates=everything(Plan(SMALL)))
    monkeypatch.setattr(known_rates, "known", lambda kind, folder: rates)
    monkeypatch.setattr(training, "resolve_device", torch.device)
    monkeypatch.setattr("sweeps.planning.estimate.slots_of", lambda kind: 2)
    console = Console(file=io.StringIO(), width=300)
    print_plan(console, Plan(THREE), storage, device, None, storage.local_path)
    *rows, note = console.file.getvalue().splitlines()  # pyright: ignore
    hours = {line.split()[0]: re.search(r"(\S+( \+ \?)?) +\S+ *$", line).group(1) for line in rows[1:]}  # pyright: ignore
    assert hours["other"] == "?"
    assert hours["total"] == "0.01 + ?"  # 15 members of 3.5 s on two devices
    assert "no rates for 2 members, in other;" in note
    assert ("GPU-hours in total" in note) == gpu_hours


def test_cohorts_add_up(storage):
    twin = Study(name="twin", title="", source="", base=BASE, grid=GRID.grid, seeds=(2, 3))
    *studies, total = estimated(storage, Sweep("twins", "", (GRID, twin, OTHER)))
    assert sum(one.cohorts for one in studies) == total.cohorts > 1
    plan = Plan(Sweep("twins", "", (GRID, twin, OTHER)))
    members = [m for members in plan.members.values() for m in members]
    assert total.cohorts == len(group(members, slots=2, workload=Workload(plan, storage.local_path)))


@pytest.mark.parametrize("sweep", [SMALL, THREE, get_sweep("quickstart")], ids=["small", "three", "quickstart"])
def test_the_size_of_a_sweep_is_that_of_its_plan(storage, sweep):
    rates = Rates(machine="here", rates=everything(Plan(SMALL)))
    size = size_of_sweep(Plan(sweep), rates=rates, slots=2, data_dir=storage.local_path)
    *studies, total = estimated(storage, sweep, rates)
    assert (size.studies, size.members, size.unmeasured) == (len(studies), total.members, total.unmeasured)
    assert size.hours == (None if total.hours is None else pytest.approx(total.hours))


def test_failed_members_are_neither_done_nor_left_unless_they_are_trained_again(storage, ledger, tmp_path):
    plan = Plan(SMALL)
    members = plan.members["grid"]
    ledger.append([row(member) for member in members[:3]])
    ledger.append([row(member, status="failed", reason="diverged", metrics={}) for member in members[3:5]])
    grid, _, total = estimated(storage)
    assert (grid.members, grid.done, grid.failed, grid.epochs) == (8, 3, 2, 2 * 3)
    assert (total.done, total.failed) == (3, 2)

    def printed(retry_failed: bool) -> list[str]:
        console = Console(file=io.StringIO(), width=200)
        print_plan(console, plan, storage, "cpu", None, tmp_path, retry_failed=retry_failed)
        return console.file.getvalue().splitlines()  # pyright: ignore

    assert re.search(r"^grid .* 8 +3 +\d+ +6 ", "\n".join(printed(False)), re.MULTILINE)
    assert "Neither done nor left: 2 members that failed (grid 2); --retry-failed trains them again." in printed(False)
    assert re.search(r"^grid .* 8 +3 +\d+ +10 ", "\n".join(printed(True)), re.MULTILINE)
    assert not any("failed" in line for line in printed(True))
