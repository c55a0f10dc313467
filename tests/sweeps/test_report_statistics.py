"""Statistics over seeds: cases that must count as reproduced, and cases that must not."""

import dataclasses
import math

import numpy as np
import pytest
from scipy import stats
from scripted import GRID, row

from search_spaces.space import Claim, Sweep
from sweeps.analysis import claims, statistics
from sweeps.analysis.cells import cells, ranked
from sweeps.analysis.verdicts import Verdict
from sweeps.planning.plan import Plan

SEEDS = tuple(range(8))
LOW, HIGH = {"optim.lr": 1e-3}, {"optim.lr": 1e-2}
LOW_WINS = Claim("low wins", LOW, HIGH)
SPREAD = (0.3, -0.2, 0.1, 0.5, -0.4, 0.2, -0.1, 0.0)
"""The differences between seeds; both rows have the same ones, because seeds share weights and noise."""


def verdicts(gains, *, claim=LOW_WINS, seeds=SEEDS, mode="min", also=(), **study):
    """Tests claims on a study in which learning rate 1e-3 is better than 1e-2 by `gains`, seed by seed."""
    tested = dataclasses.replace(GRID, seeds=seeds, claims=(claim, *also), mode=mode, **study)
    members = Plan(Sweep("tested", "Tested", (tested,))).members["grid"]
    sign = 1 if mode == "min" else -1

    def bits(member) -> float:
        seed = member.config.seed
        worse = gains[seed] if member.config.optim.lr == 1e-2 else 0.0
        # The second variance is worse in both rows, so each row shows the first.
        return 7 + SPREAD[seed] + sign * worse + sign * (member.config.likelihood.variance > 0.05)

    rows = {m.key: row(m, metrics={"bits_per_dim": bits(m)}) for m in members}
    return claims.tested(tested, cells(tested, members, rows))


def test_a_small_gain_in_every_seed_is_reproduced_whatever_the_spread_between_seeds():
    (test,) = verdicts([0.02, 0.03, 0.01, 0.02, 0.04, 0.02, 0.03, 0.02])
    assert test.verdict is Verdict.REPRODUCED
    assert test.comparison.gain.value == pytest.approx(0.02375)
    assert test.comparison.gain.low > 0
    # An unpaired test finds nothing in the same numbers.
    better, worse = (list(cell.values("bits_per_dim").values()) for cell in (test.better, test.worse))
    assert stats.ttest_ind(better, worse).pvalue > 0.5


@pytest.mark.parametrize(
    ("gains", "verdict"),
    [
        ([0.0] * 8, Verdict.EQUIVALENT),
        ([0.001, -0.002, 0.001, 0.0, 0.002, -0.001, 0.0, 0.001], Verdict.EQUIVALENT),  # the margin is 0.01 bits/dim
        ([0.5, -0.5, 0.4, -0.3, 0.2, -0.4, 0.3, -0.2], Verdict.UNDECIDED),
        ([-0.02, -0.03, -0.01, -0.02, -0.04, -0.02, -0.03, -0.02], Verdict.CONTRADICTED),
    ],
)
def test_no_gain_an_uncertain_one_and_a_loss_are_told_apart(gains, verdict):
    (test,) = verdicts(gains)
    assert test.verdict is verdict
    assert test.judgement.p_better > 0.05


@pytest.mark.parametrize(("seeds", "further"), [((0,), 4), ((0, 1, 2, 3), 1)])
def test_fewer_than_five_pairs_are_too_few_however_clear_they_are(seeds, further):
    (test,) = verdicts([10.0, 11.0, 10.5, 10.2], seeds=seeds)
    assert test.verdict is Verdict.UNDECIDED
    assert test.judgement.p_better is None
    assert test.judgement.further == further


def test_a_metric_that_is_maximized_is_tested_the_other_way():
    gains = [0.02, 0.03, 0.01, 0.02, 0.04, 0.02, 0.03, 0.02]
    (test,) = verdicts(gains, mode="max")
    assert test.verdict is Verdict.REPRODUCED
    (test,) = verdicts(gains, mode="max", claim=Claim("the other way", HIGH, LOW))
    assert test.verdict is Verdict.CONTRADICTED


def test_claims_of_one_study_are_corrected_for_their_number():
    gains = [0.06, -0.01, 0.05, -0.02, 0.05, 0.02, 0.01, 0.01]
    (alone,) = verdicts(gains)
    assert alone.verdict is Verdict.REPRODUCED
    assert 0.025 < alone.judgement.p_better < 0.05
    together = verdicts(gains, also=[Claim("and the other way", HIGH, LOW)])
    assert [test.verdict for test in together] == [Verdict.UNDECIDED] * 2
    assert together[0].judgement.p_better == pytest.approx(2 * alone.judgement.p_better)


def test_claims_about_when_a_value_is_reached_compare_epochs():
    tested = dataclasses.replace(
        GRID, seeds=SEEDS, claims=(Claim("sooner", LOW, HIGH, reaches=7.0), Claim("at last", LOW, HIGH))
    )
    members = Plan(Sweep("tested", "Tested", (tested,))).members["grid"]
    soon, late, never = [9.0, 6.9, 6.9, 6.9], [9.0, 8.0, 8.0, 6.9], [9.0, 8.0, 8.0, 8.0]

    def history(member):
        if member.config.optim.lr == 1e-3:
            return soon
        return never if member.config.seed == 0 else late

    rows = {
        m.key: row(m, epochs=4, metrics={"bits_per_dim": history(m)[-1]}, history={"bits_per_dim": history(m)})
        for m in members
    }
    sooner, _ = claims.tested(tested, cells(tested, members, rows))
    # 2 epochs against 4; a seed that never reaches the value counts as 5.
    assert sooner.comparison.gain.value == pytest.approx((3 + 7 * 2) / 8)
    assert sooner.verdict is Verdict.REPRODUCED


def test_seeds_that_failed_or_were_stopped_are_in_no_pair():
    tested = dataclasses.replace(GRID, seeds=SEEDS, claims=(LOW_WINS,))
    members = Plan(Sweep("tested", "Tested", (tested,))).members["grid"]
    status = {0: "failed", 1: "stopped"}
    rows = {
        m.key: row(m, status=status.get(m.config.seed, "finished"), metrics={"bits_per_dim": m.config.optim.lr})
        for m in members
    }
    found = cells(tested, members, rows)
    (test,) = claims.tested(tested, found)
    assert test.comparison.gain.n == 6
    assert found[0].counts == {"finished": 6, "failed": 1, "stopped": 1}
    assert test.lost.startswith("of 8 seeds of the better row 1 failed, 1 stopped")


def test_configurations_that_lost_a_seed_come_after_those_that_did_not():
    members = Plan(Sweep("tested", "Tested", (GRID,))).members["grid"]
    first = members[0]
    rows = {m.key: row(m, metrics={"bits_per_dim": 2.0 if m.labels != first.labels else 1.0}) for m in members}
    assert ranked(GRID, cells(GRID, members, rows))[0].labels == first.labels
    rows[first.key] = row(first, status="failed", reason="diverged", metrics={})
    assert ranked(GRID, cells(GRID, members, rows))[-1].labels == first.labels


def test_intervals_cover_the_mean_as_often_as_they_say():
    generator = np.random.default_rng(0)
    draws = generator.normal(size=(4000, 5))
    covered = np.mean([(found := statistics.mean(list(d))).low < 0 < found.high for d in draws])
    assert covered == pytest.approx(0.95, abs=5 * math.sqrt(0.95 * 0.05 / 4000))


def test_without_an_effect_one_claim_in_twenty_is_reproduced():
    generator = np.random.default_rng(1)
    pairs = generator.normal(size=(2000, 2, 5))
    compared = [statistics.paired(dict(enumerate(a)), dict(enumerate(b)), "min") for a, b in pairs]
    share = np.mean([c.t_p < statistics.LEVEL for c in compared])
    assert share == pytest.approx(0.05, abs=5 * math.sqrt(0.05 * 0.95 / 2000))


def test_one_seed_has_no_interval_and_no_common_seed_no_comparison():
    assert math.isnan(statistics.mean([1.0]).low)
    assert statistics.paired({0: 1.0}, {1: 1.0}, "min") is None
    assert math.isnan(statistics.paired({0: 1.0}, {0: 2.0}, "min").t_p)


def test_holm_multiplies_by_those_that_are_left_and_never_falls():
    assert statistics.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert statistics.holm([0.6, 0.7]) == [1.0, 1.0]
    assert statistics.holm([]) == []
