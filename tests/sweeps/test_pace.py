"""The estimate of the time left, on a simulated clock: the bound on its error, which the previous formula breaks."""

import dataclasses
import heapq
import itertools
from collections import defaultdict

import pytest
from scripted import GRID, row

from search_spaces.space import Axis, Study, Sweep
from sweeps.planning.pace import Pace
from sweeps.planning.plan import Member, Plan

SLOTS = 3
EPOCHS = 40
BOUND = 0.15
"""The largest error of the estimate after a tenth of the run, as a share of the run's time."""
RISE = 0.01
"""The largest rise from one report to the next while all members are in training, as a share of the run's time."""


def study(name: str, seeds: int, rates=(1e-3, 1e-2)) -> Study:
    base = dict(GRID.base) | {"epochs": EPOCHS}
    return dataclasses.replace(
        GRID, name=name, base=base, seeds=tuple(range(seeds)), grid=(Axis("optim.lr", rates),), compare=()
    )


CHEAP, DEAR = study("cheap", 6), study("dear", 4, (2e-3, 2e-2))
PLAN = Plan(Sweep("simulated", "Simulated", (CHEAP, DEAR)))
MEMBERS = {name: list(PLAN.members[name]) for name in ("cheap", "dear")}
COST = {"cheap": 1.0, "dear": 5.0}


def cost(member: Member) -> float:
    return COST["cheap" if member.study == "cheap" else "dear"]


class Replaced:
    """The previous formula: members left, times the mean number of epochs trained so far, at the rate so far."""

    def __init__(self, expected, cost, clock):
        self._clock, self._total = clock, sum(map(len, expected.values()))
        self._epochs: dict[str, int] = defaultdict(int)
        self._ended = 0

    def began(self, members):
        pass

    def reached(self, members, since, epochs):
        for member in members:
            self._epochs[member.key] = since + epochs

    def ended(self, members, rows):
        self._ended += len(members)

    def left_s(self):
        trained = sum(self._epochs.values())
        mean = trained / len(self._epochs) if self._epochs else 0
        return (self._total - self._ended) * mean * self._clock() / trained if trained else None


def simulated(kind, *, packed: int = 2, startup_s: float = 2.0, first_s: float = 0.0) -> list[tuple[float, float]]:
    """Simulates cohorts in slots, one after the other; returns (time, estimate) after each report.

    Each cohort takes `startup_s` to start; the first one of each slot takes `first_s` more, since processes start.
    """
    clock = [0.0]
    pace = kind(MEMBERS, cost, lambda: clock[0])
    waiting = [
        MEMBERS[name][i : i + packed] for name in ("dear", "cheap") for i in range(0, len(MEMBERS[name]), packed)
    ]
    events: list[tuple[float, int, list[Member], int]] = []
    told, order = [], itertools.count()
    warm = False

    def hand_out():
        cohort = waiting.pop(0)
        pace.began(cohort)
        epoch_s = sum(map(cost, cohort)) / EPOCHS * 10
        heapq.heappush(events, (clock[0] + startup_s + (0 if warm else first_s) + epoch_s, next(order), cohort, 1))

    for _ in range(SLOTS):
        hand_out()
    warm = True
    while events:
        clock[0], _, cohort, epoch = heapq.heappop(events)
        pace.reached(cohort, epoch - 1, 1)
        if epoch == EPOCHS:
            pace.ended(cohort, {member.key: row(member, epochs=EPOCHS) for member in cohort})
            if waiting:
                hand_out()
        else:
            heapq.heappush(events, (clock[0] + sum(map(cost, cohort)) / EPOCHS * 10, next(order), cohort, epoch + 1))
        told.append((clock[0], pace.left_s()))
    return told


def errors(told) -> tuple[float, float]:
    """The largest error after a tenth of the run, and the largest rise between reports, as shares of its time."""
    end = told[-1][0]
    late = [(time, left) for time, left in told if time > end / 10]
    assert len(late) > 50
    error = max(abs(left - (end - time)) for time, left in late) / end
    rise = max(b[1] - a[1] for a, b in itertools.pairwise(late)) / end
    return error, rise


@pytest.mark.parametrize("packed", [1, 2, 4])
def test_the_time_left_is_right_within_the_bound(packed):
    error, rise = errors(simulated(Pace, packed=packed))
    assert error < BOUND
    assert rise < BOUND


@pytest.mark.parametrize("packed", [1, 2, 4])
def test_the_time_in_which_processes_start_is_no_time_of_training(packed):
    told = simulated(Pace, packed=packed, first_s=60)
    end, first = told[-1][0], told[0][0]
    assert first > end / 5
    late = [(time, left) for time, left in told if time > first + (end - first) / 10]
    assert max(abs(left - (end - time)) for time, left in late) / (end - first) < BOUND


@pytest.mark.parametrize("packed", [1, 2, 4])
def test_the_replaced_formula_breaks_the_bound(packed):
    error, _ = errors(simulated(Replaced, packed=packed))
    assert error > 2 * BOUND


def test_it_does_not_rise_while_all_is_in_training_as_the_replaced_formula_did():
    assert errors(simulated(Pace, packed=8))[1] < RISE
    told = simulated(Replaced, packed=8)
    in_training = [left for time, left in told[SLOTS:] if time < told[-1][0] / 4]
    assert in_training[-1] > 4 * in_training[0]


def paced(members=MEMBERS):
    clock = [0.0]
    return Pace(members, cost, lambda: clock[0]), clock


def test_between_reports_it_falls_with_the_clock():
    pace, clock = paced()
    pace.began(MEMBERS["dear"])
    clock[0] = 10.0
    pace.reached(MEMBERS["dear"], 0, 10)  # a quarter of the work of "dear", which is 40 of 52
    assert pace.left_s() == pytest.approx(10 * (52 - 10) / 10)
    clock[0] = 17.0
    assert pace.left_s() == pytest.approx(42 - 7)


def test_nothing_is_said_before_anything_was_trained_here():
    pace, clock = paced()
    assert pace.left_s() is None
    pace.ended(MEMBERS["cheap"], {m.key: row(m, epochs=EPOCHS) for m in MEMBERS["cheap"]})
    pace.began(MEMBERS["dear"])
    clock[0] = 5.0
    assert pace.left_s() is None
    pace.reached(MEMBERS["dear"], 0, 4)
    assert pace.left_s() == pytest.approx(5 * 36 / 4), "what an earlier run has done counts neither as rate nor as left"


def test_epochs_from_a_checkpoint_are_not_left_and_say_nothing_of_the_rate():
    pace, clock = paced({"dear": MEMBERS["dear"]})
    pace.began(MEMBERS["dear"])
    clock[0] = 5.0
    pace.reached(MEMBERS["dear"], 30, 1)
    assert pace.left_s() == pytest.approx(5 * 9)


def test_members_that_stopped_early_leave_nothing():
    pace, clock = paced({"dear": MEMBERS["dear"]})
    pace.began(MEMBERS["dear"])
    for clock[0], since in ((2.0, 0), (4.0, 1), (6.0, 2), (8.0, 3)):
        pace.reached(MEMBERS["dear"], since, 1)
    stopped = MEMBERS["dear"][:7]
    pace.ended(stopped, {m.key: row(m, status="stopped", epochs=4) for m in stopped})
    # One of eight is left. It trains as fast as before; the rate of all eight would be too high for it.
    assert pace.left_s() == pytest.approx(8 / 4 * 36)


def test_a_member_that_two_studies_share_counts_once():
    twice = {"dear": MEMBERS["dear"], "again": [dataclasses.replace(m, study="again") for m in MEMBERS["dear"]]}
    pace, clock = paced(twice)
    both = [member for members in twice.values() for member in members]
    pace_alone, clock_alone = paced({"dear": MEMBERS["dear"]})
    for each, its, members in ((pace, clock, both), (pace_alone, clock_alone, MEMBERS["dear"])):
        each.began(members)
        its[0] = 6.0
        each.reached(MEMBERS["dear"], 0, 3)
    assert pace.left_s() == pace_alone.left_s() == pytest.approx(6 / 3 * 37)


def test_a_study_that_turns_out_smaller_leaves_less():
    pace, clock = paced()
    pace.began(MEMBERS["dear"])
    clock[0] = 10.0
    pace.reached(MEMBERS["dear"], 0, 10)
    assert pace.left_s({"cheap": 6, "dear": 8}) == pytest.approx(10 * (6 + 40 - 10) / 10)
