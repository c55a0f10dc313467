"""Interquartile mean and probability of improvement over studies, against scipy, loops and simulations."""

import dataclasses
import html
import re

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scripted import GRID, row

from search_spaces import get_sweep
from search_spaces.space import Axis, Sweep
from sweeps.analysis.across import (
    across,
    bootstrapped,
    interquartile_mean,
    normalized,
    probability_of_improvement,
    tables,
)
from sweeps.analysis.cells import cells
from sweeps.analysis.frames import results_table
from sweeps.planning.plan import Plan
from sweeps.report.html import report

GENERATOR = np.random.default_rng(0)
SCORES = [GENERATOR.normal(size=(4, 5)), 3 * GENERATOR.normal(size=(4, 8)), GENERATOR.normal(size=(4, 3))]


# --- statistics ------------------------------------------------------------------------------------------------------


def test_the_interquartile_mean_is_that_of_scipy():
    want = [stats.trim_mean(np.concatenate([one[row] for one in SCORES]), 0.25) for row in range(4)]
    assert interquartile_mean(SCORES) == pytest.approx(want, rel=1e-12)


def test_a_single_catastrophe_moves_the_mean_but_not_the_interquartile_mean():
    worse = [one.copy() for one in SCORES]
    worse[1][0, worse[1][0].argmin()] = -1e6  # it was the worst before, too
    assert min(one[0].min() for one in SCORES) == SCORES[1][0].min()
    assert interquartile_mean(worse)[0] == pytest.approx(interquartile_mean(SCORES)[0])
    assert np.mean(np.concatenate([one[0] for one in worse])) < -1000


def test_the_probability_of_improvement_is_that_of_mann_and_whitney():
    tied = [np.round(one) for one in SCORES]
    for scores in (SCORES, tied):
        u = [[stats.mannwhitneyu(one[2], one[row]).statistic / one.shape[1] ** 2 for row in range(4)] for one in scores]
        assert probability_of_improvement(scores, 2) == pytest.approx(np.mean(u, axis=0))


def test_scores_are_normalized_by_the_rows_of_their_study():
    for one in normalized(SCORES):
        assert (one.mean(1).min(), one.mean(1).max()) == pytest.approx((0, 1), abs=1e-12)
    (equal,) = normalized([np.full((3, 4), 2.5)])
    assert (equal == 0).all()


@pytest.mark.parametrize("statistic", [interquartile_mean, lambda drawn: probability_of_improvement(drawn, 1)])
def test_the_bootstrap_is_that_of_a_plain_loop(statistic):
    got = bootstrapped(SCORES, statistic, samples=20_000)
    generator = np.random.default_rng(1)
    drawn = []
    for _ in range(4000):
        drawn.append(statistic([one[:, generator.choice(one.shape[1], one.shape[1])] for one in SCORES]))
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    assert [each.value for each in got] == pytest.approx(list(statistic(SCORES)))
    assert [each.low for each in got] == pytest.approx(list(low), abs=0.05)
    assert [each.high for each in got] == pytest.approx(list(high), abs=0.05)


def test_rows_share_the_drawn_seeds():
    """Two rows that differ by a constant in each seed have the same order in every sample."""
    one = GENERATOR.normal(size=(1, 6))
    (gap,) = bootstrapped([np.concatenate([one, one + 0.1])], lambda drawn: np.diff(interquartile_mean(drawn)))
    assert (gap.low, gap.value, gap.high) == pytest.approx((0.1, 0.1, 0.1))


def test_two_seeds_have_no_interval():
    got = bootstrapped([one[:, :2] for one in SCORES], interquartile_mean)
    assert np.isnan([[each.low, each.high] for each in got]).all()
    assert np.isfinite([each.value for each in got]).all()


def covered(seeds: int, confidence: float, times: int = 400) -> float:
    """How often the interval holds the true probability of improvement, over three studies of normal scores."""
    shift, generator, held = 0.7, np.random.default_rng(0), 0
    truth = stats.norm.cdf(shift / 2**0.5)
    for time in range(times):
        scores = [generator.normal([[shift], [0]], 1, (2, seeds)) for _ in range(3)]
        _, each = bootstrapped(
            scores, lambda s: probability_of_improvement(s, 0), confidence=confidence, samples=500, seed=time
        )
        held += each.low <= truth <= each.high
    return held / times


def test_intervals_hold_about_as_often_as_they_say():
    assert 0.90 < covered(10, 0.95) <= 0.99


def test_an_interval_of_half_the_confidence_does_not():
    assert covered(10, 0.5) < 0.6


# --- rows and tables -------------------------------------------------------------------------------------------------

RATES, SEEDS = (1e-3, 3e-3, 1e-2), (0, 1, 2, 3)


def made_up(lost=(), **changes):
    """Two studies of one table, with random metrics; members in `lost`, by (study, rate, seed), diverge."""
    one = dataclasses.replace(GRID, name="first", grid=(Axis("optim.lr", RATES),), seeds=SEEDS, across="both")
    two = dataclasses.replace(one, name="second", base=GRID.base | {"epochs": 3}, **changes)
    plan = Plan(Sweep("small", "Small", (one, two)))
    members = [member for study in plan.studies for member in plan.members[study.name]]
    generator = np.random.default_rng(4)
    rows = {}
    for member in members:
        metrics = {"bits_per_dim": float(generator.normal() - 300 * member.config.optim.lr)}
        diverges = (member.study, member.config.optim.lr, member.config.seed) in lost
        rows[member.key] = row(member, **({"status": "failed", "metrics": {}} if diverges else {"metrics": metrics}))
    return plan, members, rows


def result(plan, members, rows):
    ((name, studies),) = tables(plan.studies).items()
    return across(name, studies, {study.name: cells(study, members, rows) for study in studies})


@pytest.mark.parametrize("modes", [("min", "min"), ("min", "max")])
def test_rows_over_studies_are_those_of_pandas(modes):
    plan, members, rows = made_up(mode=modes[1])
    got = result(plan, members, rows)
    table = results_table(members, rows, {})
    table["score"] = [
        (1 if modes[study == "second"] == "max" else -1) * value
        for study, value in zip(table["study"], table["metrics.bits_per_dim"], strict=True)
    ]
    means = table.groupby(["study", "config.optim.lr"])["score"].mean().unstack()
    worst, best = means.min(axis=1), means.max(axis=1)
    table["scaled"] = (table["score"] - table["study"].map(worst)) / table["study"].map(best - worst)
    want = table.groupby("config.optim.lr")["scaled"].apply(lambda of: of.sort_values().iloc[2:-2].mean())
    assert {each.labels["optim.lr"]: each.iqm.value for each in got.rows} == pytest.approx(want.to_dict())
    assert [each.labels["optim.lr"] for each in got.rows] == list(want.sort_values(ascending=False).index)
    first, *others = got.rows
    assert first.beaten is None
    for other in others:
        wins = [
            pd.merge(*(table[(table["study"] == s) & (table["config.optim.lr"] == lr)] for lr in pair), how="cross")
            .eval("score_x > score_y")
            .mean()
            for s in ("first", "second")
            for pair in [(first.labels["optim.lr"], other.labels["optim.lr"])]
        ]
        assert other.beaten.value == pytest.approx(np.mean(wins))
        assert other.beaten.low <= other.beaten.value <= other.beaten.high
    assert (got.seeds, got.absent, got.lost) == ((4, 4), (), 0)


def test_seeds_that_a_row_lost_are_left_out_for_all_rows_and_counted():
    got = result(*made_up(lost=[("first", 1e-3, 2)]))
    assert (got.seeds, got.lost) == ((3, 4), 1)


def test_a_row_without_results_in_a_study_is_named():
    got = result(*made_up(lost=[("first", 1e-3, seed) for seed in SEEDS]))
    assert [each.labels["optim.lr"] for each in got.rows] == [1e-2, 3e-3]
    assert got.absent == ({"optim.lr": 1e-3},)


def test_one_study_with_results_is_no_table():
    plan, members, rows = made_up()
    assert result(plan, members, {m.key: rows[m.key] for m in members if m.study == "first"}) is None


@pytest.mark.parametrize("compare", [("likelihood.variance",), ()])
def test_studies_of_one_table_compare_the_same_rows(compare):
    with pytest.raises(ValueError, match="'first' and 'second' form the table 'both', so they need the same compare"):
        made_up(compare=compare)


def test_the_papers_tables_over_data_sets_are_declared():
    assert {name: len(of) for name, of in tables(get_sweep("paper_grid").studies).items()} == {
        "Silent Gradients, Tables 3 and 4": 3,
        "ReinMax's protocol": 2,
    }
    assert {name: len(of) for name, of in tables(get_sweep("beyond").studies).items()} == {"Estimators old and new": 3}


def test_the_page_has_the_table_and_the_figure_after_the_last_study():
    plan, members, rows = made_up(lost=[("first", 1e-3, 2)])
    files = report(plan, members, rows)
    page = html.unescape(files["index.html"].decode())
    got = result(plan, members, rows)
    assert page.index("Table: second") < page.index("Table: second-across")
    text = page.split("Table: second-across")[1].split("</table>")[0]
    shown = re.findall(r'<td class="" data-search="([^"]*)" data-order="([^"]*)">', text)
    first, second = got.rows[:2]
    assert [float(value) for _, value in shown[:2]] == pytest.approx([first.iqm.value, first.iqm.low])
    assert shown[0][0] == f"{first.iqm.value:.2f}"
    assert [text for text, _ in shown[2:4]] == ["–", "–"]
    assert shown[7][0] == f"{second.beaten.low:.2f} to {second.beaten.high:.2f}"
    assert "1 seed was left out" in page
    csv = pd.read_csv(pd.io.common.BytesIO(files["tables/second-across.csv"]))
    assert list(csv["optim.lr"]) == [each.labels["optim.lr"] for each in got.rows]
    assert csv["iqm_low"].tolist() == pytest.approx([each.iqm.low for each in got.rows])
    assert csv["probability_that_the_best_is_better"].tolist()[1:] == pytest.approx(
        [e.beaten.value for e in got.rows[1:]]
    )
    assert files["figures/second-across.png"].startswith(b"\x89PNG")
