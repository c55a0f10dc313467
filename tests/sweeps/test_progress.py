"""The progress of a run, shown on a terminal, in a file and as JSON."""

import dataclasses
import io
import json
import math

import numpy as np
import pytest
from rich.console import Console
from scripted import GRID, SMALL, result, row

from search_spaces.space import Axis, Sweep
from sweeps.analysis.summary import summary
from sweeps.driver.json_log import JsonLog
from sweeps.driver.progress import FAILURES_TOLD, Progress, sparkline
from sweeps.planning.pace import Pace
from sweeps.planning.plan import Plan
from sweeps.records.snapshot import InTraining, RunSnapshot

PLAN = Plan(SMALL)
MEMBERS = PLAN.members["grid"]
HISTORY = {"bits_per_dim": np.array([[9.0] * 8, [8.0] * 7 + [math.nan]])}


def shown(plan: Plan, told, height: int = 40, width: int = 200) -> str:
    """The live view on a terminal after `told(progress)`."""
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=True, color_system=None)
    progress = Progress(console, plan)
    told(progress)
    with console.capture() as capture:
        console.print(progress._render())
    return console.file.getvalue() + capture.get()  # pyright: ignore


def test_sparklines_rise_with_the_numbers_and_leave_out_what_is_none():
    assert sparkline([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]) == "▁▂▃▄▅▆▇█"
    assert sparkline([3.0, math.nan, 1.0]) == "█▁"
    assert sparkline([2.0, 2.0]) == "▁▁"
    assert sparkline([1.0]) == ""
    assert len(sparkline(list(range(1000)))) == 16


def test_the_live_view_has_a_bar_a_study_the_course_of_its_metric_and_the_best_so_far():
    def told(progress):
        progress.started(MEMBERS)
        progress.progressed(MEMBERS, 0, HISTORY)
        progress.ended(MEMBERS[:2], {m.key: row(m) for m in MEMBERS[:2]})

    text = shown(PLAN, told)
    grid = next(line for line in text.splitlines() if line.startswith("grid"))
    assert "2/8" in grid
    assert "█▁" in grid
    mean = (result(MEMBERS[0]).metrics["bits_per_dim"] + result(MEMBERS[1]).metrics["bits_per_dim"]) / 2
    assert f"bits_per_dim {mean:.4g} (learning rate 0.001, variance 0.01; n = 2)" in grid
    assert "2/2" in grid  # epochs
    assert any(line.startswith("searched") and "0/7" in line for line in text.splitlines())


def test_the_best_is_that_of_the_mean_over_seeds_not_of_one_lucky_member():
    lucky, steady = MEMBERS[:2], MEMBERS[-2:]
    values = dict(zip([member.key for member in (*lucky, *steady)], [0.0, 9.0, 4.0, 4.0], strict=True))
    rows = {m.key: row(m, metrics={"bits_per_dim": values[m.key]}) for m in (*lucky, *steady)}
    text = shown(PLAN, lambda progress: progress.ended([*lucky, *steady], rows))
    assert "bits_per_dim 4 (learning rate 0.01, variance 0.1; n = 2)" in text


def test_until_a_member_has_ended_the_best_is_that_of_members_in_training():
    def told(progress):
        progress.started(MEMBERS)
        progress.progressed(MEMBERS, 0, {"bits_per_dim": np.array([[9.0] * 7 + [6.5], [8.0] * 8])})

    assert "bits_per_dim 6.5, best member in training" in shown(PLAN, told)


LONG = dataclasses.replace(
    GRID,
    name="a/study_with_a_long_name_as_there_are",
    grid=(*GRID.grid, Axis("optim.weight_decay", (0.0, 0.5))),
    compare=(),
)


@pytest.mark.parametrize("columns", [60, 80])
def test_on_a_narrow_terminal_nothing_is_cut_or_left_out(columns):
    plan = Plan(Sweep("long", "Long", (LONG,)))
    members = plan.members[LONG.name]
    failed = row(members[2], status="failed", reason="diverged", metrics={})

    def told(progress):
        progress.started(members)
        progress.progressed(members, 0, {"bits_per_dim": np.array([[9.0] * 16, [8.0] * 16])})
        progress.ended(members[:3], {m.key: row(m) for m in members[:2]} | {members[2].key: failed})

    wide, narrow = (shown(plan, told, width=width).splitlines() for width in (200, columns))
    view = narrow[narrow.index(next(line for line in narrow if line.startswith(LONG.name))) :]
    assert max(map(len, view)) <= columns
    text = " ".join(" ".join(view).split())
    assert "…" not in text
    best = next(line for line in wide if line.startswith(LONG.name)).partition("bits_per_dim")[2].strip()
    assert best.endswith("n = 2)")
    for part in (LONG.name, "done 2/16", "running 13", "failed 1", "epoch 2/2", f"best so far bits_per_dim {best}"):
        assert part in text


def test_labels_with_brackets_are_shown_as_they_are():
    widths = dataclasses.replace(GRID, grid=(Axis("encoder.hidden", ([8], [4])),), compare=())
    plan = Plan(Sweep("widths", "Widths", (widths,)))
    members = plan.members["grid"]
    assert "(hidden (encoder) [8]; n = 2)" in shown(plan, lambda p: p.ended(members, {m.key: row(m) for m in members}))


def test_what_is_kept_for_status_says_how_far_members_in_training_are(storage):
    clock = [0.0]
    kept: list[RunSnapshot] = []
    pace = Pace({"grid": MEMBERS}, lambda member: 1.0, lambda: clock[0])
    progress = Progress(Console(file=io.StringIO()), PLAN, pace, kept.append)
    progress.started(MEMBERS)
    clock[0] = 3.0
    progress.progressed(MEMBERS, 0, {"bits_per_dim": np.array([[9.0] * 7 + [math.nan]])})
    (snapshot,) = kept
    assert snapshot.studies == {"grid": InTraining(1, 2, 9.0)}
    assert snapshot.left_s == pytest.approx(3.0)
    snapshot.write(storage)
    assert RunSnapshot.read(storage).studies == snapshot.studies


def test_a_damaged_or_missing_snapshot_says_nothing(storage):
    assert RunSnapshot.read(storage) == RunSnapshot()
    for content in (b"", b"[]", b'{"left_s": "soon"}', b"\xff"):
        storage.write("progress.json", content)
        assert RunSnapshot.read(storage) == RunSnapshot()


def test_failures_are_told_as_they_happen_but_not_by_the_thousand():
    many = dataclasses.replace(GRID, seeds=tuple(range(10)))
    plan = Plan(Sweep("many", "Many", (many,)))
    members = plan.members["grid"]
    rows = {m.key: row(m, status="failed", reason="diverged", epochs=1, metrics={}) for m in members}
    text = shown(plan, lambda progress: progress.ended(members, rows))
    assert "Failed: grid: learning rate 0.001, variance 0.01, seed 0: diverged in epoch 1" in text
    assert text.count("Failed:") == FAILURES_TOLD < len(members)
    assert text.count("There are more failures") == 1


def test_more_studies_than_fit_on_a_screen_leave_those_at_work_on_it():
    studies = tuple(dataclasses.replace(GRID, name=f"study{index}", seeds=(index,)) for index in range(20))
    plan = Plan(Sweep("wide", "Wide", studies))
    text = shown(plan, lambda progress: progress.started(plan.members["study17"]), height=12)
    assert "study17" in text
    assert "14 more studies" in text
    assert len(text.splitlines()) <= 12


def told_to_json(**options) -> list[dict]:
    stream = io.StringIO()
    log = JsonLog(stream, **options)
    log.started(MEMBERS)
    log.progressed(MEMBERS, 4, HISTORY)
    log.ended(MEMBERS[:1], {MEMBERS[0].key: row(MEMBERS[0], metrics={"elbo": math.inf, "kl": 1.5})})
    return list(map(json.loads, stream.getvalue().splitlines()))


def test_the_json_log_is_an_object_a_line_without_nan():
    started, progressed, ended = told_to_json()
    assert [started["event"], progressed["event"], ended["event"]] == ["started", "progressed", "ended"]
    assert [each["key"] for each in started["members"]] == [member.key for member in MEMBERS]
    assert progressed["epoch"] == 6
    assert ended["labels"] == MEMBERS[0].labels
    assert ended["status"] == "finished"
    assert ended["metrics"] == {"elbo": None, "kl": 1.5}


def test_progress_in_the_json_log_is_short_and_has_the_metrics_on_request_only():
    started, short, _ = told_to_json()
    assert short.keys() == {"event", "time", "cohort", "epoch", "members"}
    assert (short["cohort"], short["members"]) == (started["cohort"], 8)
    _, long, _ = told_to_json(metrics=True)
    assert long["metrics"]["bits_per_dim"] == [8.0] * 7 + [None]
    assert long["keys"] == [member.key for member in MEMBERS]
    assert short.items() - {("time", short["time"])} <= {(name, value) for name, value in long.items() if name in short}


def test_the_summary_fits_one_screen_however_many_studies_there_are():
    studies = tuple(dataclasses.replace(GRID, name=f"study{index}", seeds=(index,)) for index in range(50))
    plan = Plan(Sweep("wide", "Wide", studies))
    members = [member for study in plan.studies for member in plan.members[study.name]]
    rows = {m.key: row(m) for m in members}
    rows[members[0].key] = row(members[0], status="failed", reason="diverged", metrics={})
    found = summary(plan, members, rows, trained=3)
    assert (found.members, found.done, found.failed, len(found.best)) == (200, 199, 1, 50)
    lines = found.lines()
    assert lines[0] == "199 of 200 members done, 1 failed, 3 trained now."
    assert lines[-1] == "… and 38 more studies; the report has all of them"
    assert len(lines) < 20


def test_the_line_counts_a_member_that_studies_share_once():
    twin = dataclasses.replace(GRID, name="twin")
    plan = Plan(Sweep("twins", "", (GRID, twin)))
    members = [member for own in plan.members.values() for member in own]
    console = Console(file=io.StringIO(), width=200)
    progress = Progress(console, plan)
    some = {member.key for member in members[:3]}
    progress.started([member for member in members if member.key in some])
    ended = [member for member in members if member.key == members[0].key]
    progress.ended(ended, {member.key: row(member) for member in ended})
    progress._line(every_s=0)
    assert plan.total() == 8
    assert console.file.getvalue().splitlines()[-1].startswith("1/8 done, 2 running, 0 failed; ")  # pyright: ignore


def test_a_study_without_labels_tells_its_best_without_an_empty_place():
    plain = dataclasses.replace(GRID, grid=(), compare=())
    plan = Plan(Sweep("plain", "", (plain,)))
    members = plan.members["grid"]
    found = summary(plan, members, {m.key: row(m, metrics={"bits_per_dim": 3.0}) for m in members}, 2)
    assert found.lines()[1] == "grid: best bits_per_dim 3 (n = 2)"


def test_a_failure_by_an_error_names_the_error(storage):
    plan = Plan(Sweep("one", "One", (GRID,)))
    member = plan.members["grid"][0]
    detail = "Traceback (most recent call last):\n  File …\nKeyError: 's3://user:geheim@bucket'\n"
    rows = {member.key: row(member, status="failed", reason="error", detail=detail, epochs=0, metrics={})}
    text = shown(plan, lambda progress: progress.ended([member], rows))
    assert "seed 0: error in epoch 0 (KeyError: 's3://user:***@bucket')" in " ".join(text.split())
