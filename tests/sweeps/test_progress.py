"""What a run shows: to people on a terminal or in a file, and to programs."""

import dataclasses
import io
import json
import math

import numpy as np
from rich.console import Console
from scripted import GRID, SMALL, row

from search_spaces.space import Sweep
from sweeps.analysis.summary import summary
from sweeps.driver.json_log import JsonLog
from sweeps.driver.progress import FAILURES_TOLD, Progress, sparkline
from sweeps.planning.plan import Plan

PLAN = Plan(SMALL)
MEMBERS = PLAN.members["grid"]
HISTORY = {"bits_per_dim": np.array([[9.0] * 8, [8.0] * 7 + [math.nan]])}


def shown(plan: Plan, told, height: int = 40) -> str:
    """The live view on a terminal after `told(progress)`."""
    console = Console(file=io.StringIO(), width=200, height=height, force_terminal=True, color_system=None)
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
    assert "bits_per_dim 1 (lr 0.001, variance 0.01)" in grid
    assert any(line.startswith("searched") and "0/7" in line for line in text.splitlines())


def test_failures_are_told_as_they_happen_but_not_by_the_thousand():
    many = dataclasses.replace(GRID, seeds=tuple(range(10)))
    plan = Plan(Sweep("many", "Many", (many,)))
    members = plan.members["grid"]
    rows = {m.key: row(m, status="failed", reason="diverged", epochs=1, metrics={}) for m in members}
    text = shown(plan, lambda progress: progress.ended(members, rows))
    assert "Failed: grid: lr 0.001, variance 0.01, seed 0: diverged in epoch 1" in text
    assert text.count("Failed:") == FAILURES_TOLD < len(members)
    assert text.count("More failures") == 1


def test_more_studies_than_fit_on_a_screen_leave_those_at_work_on_it():
    studies = tuple(dataclasses.replace(GRID, name=f"study{index}", seeds=(index,)) for index in range(20))
    plan = Plan(Sweep("wide", "Wide", studies))
    text = shown(plan, lambda progress: progress.started(plan.members["study17"]), height=12)
    assert "study17" in text
    assert "14 more studies" in text
    assert len(text.splitlines()) <= 12


def test_the_json_log_is_an_object_a_line_without_nan():
    stream = io.StringIO()
    log = JsonLog(stream)
    log.started(MEMBERS)
    log.progressed(MEMBERS, 4, HISTORY)
    log.ended(MEMBERS[:1], {MEMBERS[0].key: row(MEMBERS[0], metrics={"elbo": math.inf, "kl": 1.5})})
    started, progressed, ended = map(json.loads, stream.getvalue().splitlines())
    assert [started["event"], progressed["event"], ended["event"]] == ["started", "progressed", "ended"]
    assert [each["key"] for each in started["members"]] == [member.key for member in MEMBERS]
    assert progressed["epoch"] == 6
    assert progressed["metrics"]["bits_per_dim"] == [8.0] * 7 + [None]
    assert ended["labels"] == MEMBERS[0].labels
    assert ended["status"] == "finished"
    assert ended["metrics"] == {"elbo": None, "kl": 1.5}


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
    assert lines[-1] == "… and 38 more studies, in the report"
    assert len(lines) < 20
