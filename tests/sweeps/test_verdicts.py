"""Verdicts on claims, and what they are made of: against scipy and statsmodels, and on sweeps of known truth."""

import importlib
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.weightstats import DescrStatsW

from search_spaces.published import Number
from search_spaces.space import Claim
from sweeps.analysis.paper import consistency
from sweeps.analysis.statistics import ENOUGH, MANY, Paired, mean, paired
from sweeps.analysis.verdicts import Question, Verdict, judge, rule

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def comparison(*gains: float) -> Paired:
    return Paired(mean(gains), gains)


@pytest.fixture
def truths(monkeypatch):
    """benchmarks/verdicts.py, which makes synthetic sweeps."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("verdicts")


@pytest.mark.parametrize("bound", [0.0, -0.3, 0.4])
def test_p_values_are_those_of_scipy_and_statsmodels(bound):
    first, second = np.random.default_rng(0).normal(size=(2, 9))
    found = paired(dict(enumerate(first)), dict(enumerate(second)), "max")
    assert found.p_above(bound) == pytest.approx(stats.ttest_1samp(first - second, bound, alternative="greater").pvalue)
    assert found.p_below(bound) == pytest.approx(stats.ttest_1samp(first - second, bound, alternative="less").pvalue)
    assert found.t_p == pytest.approx(stats.ttest_rel(first, second, alternative="greater").pvalue)
    both = DescrStatsW(first - second).ttost_mean(-0.5, 0.5)[0]
    assert found.p_within(0.5) == pytest.approx(both)


def test_less_is_better_turns_the_differences_round():
    first, second = {0: 1.0, 1: 2.0, 3: 5.0}, {0: 2.0, 1: 2.5, 2: 9.0}
    assert paired(first, second, "min").differences == (1.0, 0.5)
    assert paired(first, second, "max").differences == (-1.0, -0.5)


def test_the_seeds_needed_find_the_difference_with_power_80_percent_and_one_fewer_does_not():
    found = comparison(1.0, -1.2, 0.9, -0.4, 0.6, 0.1)
    spread = np.std(found.differences, ddof=1)
    n = found.seeds_needed(0.4 * spread)

    def power(n: int) -> float:
        """By the noncentral t distribution, written out."""
        critical = stats.t.ppf(0.95, n - 1)
        return float(stats.nct.sf(critical, n - 1, 0.4 * math.sqrt(n)))

    assert power(n - 1) < 0.8 <= power(n)


def test_the_seeds_needed_are_unknown_without_spread_or_difference_and_too_many_for_a_tiny_one():
    assert comparison(1.0).seeds_needed(1.0) is None
    assert comparison(1.0, -1.0, 1.0, -1.0, 0.0).seeds_needed(0.0) is None
    assert comparison(1.0, -1.0, 1.0, -1.0, 0.0).seeds_needed(1e-6) is None
    assert comparison(1.0, 1.0, 1.0).seeds_needed(1.0) == ENOUGH
    assert ENOUGH < comparison(1.0, -1.0, 1.0, -1.0, 0.0).seeds_needed(0.05) < MANY


@pytest.mark.parametrize(
    ("gains", "margin", "verdict"),
    [
        ((2.0, 2.1, 1.9, 2.2, 1.8), None, Verdict.REPRODUCED),
        ((-2.0, -2.1, -1.9, -2.2, -1.8), None, Verdict.CONTRADICTED),
        ((0.1, -0.1, 0.0, 0.05, -0.05), 1.0, Verdict.EQUIVALENT),
        ((0.1, -0.1, 0.0, 0.07, -0.05), None, Verdict.UNDECIDED),
        ((0.1, -0.1, 0.0, 0.05, -0.05), 0.01, Verdict.UNDECIDED),
        ((2.0, 2.1, 1.9, 2.2), None, Verdict.UNDECIDED),
        ((0.0,) * 5, 0.01, Verdict.EQUIVALENT),
        ((-3.0, 1.0, -2.0, 0.5, -1.5), None, Verdict.UNDECIDED),
    ],
)
def test_the_four_verdicts(gains, margin, verdict):
    (found,) = judge([Question(comparison(*gains), margin)])
    assert found.verdict is verdict
    assert (found.further is not None) == (verdict is Verdict.UNDECIDED)


def test_a_contradicted_claim_has_its_interval_on_the_other_side():
    generator = np.random.default_rng(3)
    seen = set()
    for _ in range(300):
        one = comparison(*(generator.normal(size=6) - 0.9))
        (found,) = judge([Question(one)])
        assert (found.verdict is Verdict.CONTRADICTED) == (one.gain.high < 0)
        seen.add(found.verdict)
    assert seen >= {Verdict.CONTRADICTED, Verdict.UNDECIDED}


def test_without_a_common_seed_nothing_is_decided():
    (found,) = judge([Question(None, 0.1)])
    assert (found.verdict, found.further) == (Verdict.UNDECIDED, ENOUGH)


def test_each_kind_of_p_value_is_corrected_for_the_claims_that_have_it():
    clear, unclear, few = comparison(2.0, 2.1, 1.9, 2.2, 1.8), comparison(0.4, -0.1, 0.3, 0.1, 0.2), comparison(1.0)
    found = judge([Question(clear, 1.0), Question(unclear), Question(few, 1.0)])
    assert found[0].p_better == pytest.approx(2 * clear.p_above(0))
    assert found[1].p_better == pytest.approx(unclear.p_above(0))
    assert found[0].p_equivalent == pytest.approx(clear.p_within(1.0))  # the only one with a margin and enough seeds
    assert found[1].p_equivalent is None
    assert found[2].p_better is None


def test_the_rule_warns_of_rows_that_the_same_seeds_chose():
    assert "the same seeds chose it" in rule(confirmed=False)
    assert "the same seeds chose it" not in rule(confirmed=True)


def test_a_margin_is_above_zero():
    with pytest.raises(ValueError, match="above 0"):
        Claim("text", {}, {}, margin=0.0)


@pytest.mark.parametrize(("truth", "limit"), [(0, 0.05), (1, 0.05), (2, 0.05)])
def test_fresh_seeds_reproduce_a_false_claim_in_five_of_a_hundred_sweeps(truths, truth, limit):
    sweeps = 600
    _, (_, counts) = truths.shares(truths.TRUTHS[truth], sweeps, 1)
    assert truths.TRUTHS[truth].gain == 0
    assert counts[Verdict.REPRODUCED] / sweeps <= limit + 3 * math.sqrt(limit * (1 - limit) / sweeps)
    assert counts[Verdict.CONTRADICTED] / sweeps <= limit / 2 + 3 * math.sqrt(limit / 2 / sweeps)


def test_the_seeds_that_chose_reproduce_it_far_more_often(truths):
    (_, counts), _ = truths.shares(truths.TRUTHS[2], 200, 1)
    assert counts[Verdict.REPRODUCED] / 200 > 0.3


def test_a_difference_as_large_as_the_margin_is_called_equivalent_in_at_most_five_of_a_hundred(truths):
    truth = truths.TRUTHS[9]
    assert truth.gain == truth.margin
    _, (_, counts) = truths.shares(truth, 600, 1)
    assert 0 < counts[Verdict.EQUIVALENT] / 600 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 600)


# --- the paper's numbers ----------------------------------------------------------------------------------------------


def test_repetitions_of_the_paper_are_consistent_with_it_as_often_as_the_interval_says():
    generator = np.random.default_rng(4)
    hits = 0
    for _ in range(2000):
        theirs, ours = mean(generator.normal(size=4)), mean(generator.normal(size=6))
        number = Number(labels={}, metric="elbo", value=theirs.value, stderr=theirs.stderr, n=4)
        hits += consistency(ours, number).consistent is True
    assert hits / 2000 == pytest.approx(0.95, abs=4 * math.sqrt(0.95 * 0.05 / 2000))


def test_without_a_printed_error_it_says_which_difference_ours_would_find():
    generator = np.random.default_rng(5)
    number = Number(labels={}, metric="elbo", value=3.0)
    ours = mean([0.9, 1.1, 1.3, 0.8, 1.2, 1.0])
    found = consistency(ours, number)
    assert found.consistent is None
    spread = ours.stderr * math.sqrt(ours.n)
    draws = generator.normal(found.sees, spread, size=(4000, ours.n))
    power = np.mean(stats.ttest_1samp(draws, 0, axis=1).pvalue < 0.05)
    assert power == pytest.approx(0.8, abs=4 * math.sqrt(0.8 * 0.2 / 4000))
    assert consistency(mean([1.0]), number).sees is None
