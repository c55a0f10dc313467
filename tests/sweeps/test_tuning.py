"""Tuning curves and sensitivities: against Monte Carlo, against pandas, and bands that must fail."""

import dataclasses
import html
import re

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scripted import GRID, SEARCH, row

from search_spaces.space import Axis, Search, Study, Sweep
from sweeps.analysis.cells import cells
from sweeps.analysis.frames import results_table
from sweeps.analysis.tuning import sensitivities, tuned_rows, tuning_curve, unsuited
from sweeps.planning.plan import Plan
from sweeps.report.html import report

RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
VARIANCES = (0.01, 0.03, 0.1)
TUNED = dataclasses.replace(
    GRID,
    grid=(Axis("latent.size", (2, 4, 8)), Axis("optim.lr", RATES), Axis("likelihood.variance", VARIANCES)),
    seeds=(0, 1, 2),
    compare=("latent.size",),
)


def made_up(study: Study, draw: int = 0, lost: tuple = ()):
    """A plan, its members, and their rows with random metrics; members with a seed in `lost` diverge."""
    generator = np.random.default_rng(draw)
    plan = Plan(Sweep("small", "Small", (study,)))
    members = plan.members[study.name]
    rows = {}
    for member in members:
        value = float(generator.normal(5.0))
        c = member.config
        diverges = (c.latent.size, c.optim.lr, c.likelihood.variance, c.seed) in lost
        rows[member.key] = (
            row(member, status="failed", reason="diverged", metrics={}, history={})
            if diverges
            else row(member, metrics={"bits_per_dim": value}, history={"bits_per_dim": [value, value]})
        )
    return plan, members, rows


def by_pandas(members, rows, sign=1) -> pd.DataFrame:
    """The loss of each configuration, from the table that users read; infinite if a seed failed."""
    table = results_table(members, rows, {}).rename(columns=lambda name: name.split(".", 1)[-1])
    keys = ["latent.size", "optim.lr", "likelihood.variance"]
    groups = table.groupby(keys)
    loss = sign * groups["bits_per_dim"].mean()
    return loss.where(groups["status"].agg(lambda of: (of == "finished").all()), np.inf).reset_index(name="loss")


# --- curves ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("failed", [0, 3])
def test_the_curve_is_the_median_of_the_best_of_n_random_draws(failed):
    generator = np.random.default_rng(1)
    losses = np.concatenate([generator.normal(size=6), [np.inf] * failed])
    curve = tuning_curve(losses)
    for n in range(1, len(losses) + 1):
        best = generator.choice(losses, (200_000, n)).min(1)
        median = curve.median[n - 1]
        assert (best <= median).mean() > 0.495
        assert (best < median).mean() < 0.505


def covered(confidence: float, n: int = 12, times: int = 1500) -> float:
    """How often the band holds the true medians for all n together; losses are normally distributed."""
    tried = np.arange(1, n + 1)
    truth = stats.norm.ppf(1 - 0.5 ** (1 / tried))
    generator = np.random.default_rng(0)
    held = 0
    for _ in range(times):
        curve = tuning_curve(generator.normal(size=n), confidence)
        held += bool(np.all((curve.low <= truth) & (truth <= curve.high)))
    return held / times


def test_bands_hold_as_often_as_they_say():
    assert covered(0.95) > 0.95 - 3 * (0.05 * 0.95 / 1500) ** 0.5


def test_a_band_of_half_the_confidence_does_not():
    assert covered(0.5) < 0.9


def test_a_few_losses_limit_one_side_at_most():
    curve = tuning_curve([3.0, 1.0, 2.0, 4.0, 5.0, 6.0, 7.0, 8.0])
    assert list(curve.median[[0, -1]]) == [4.0, 1.0]
    assert (curve.low <= curve.median).all()
    assert (curve.median <= curve.high).all()
    assert np.isneginf(curve.low[-1])  # a better configuration may exist
    assert curve.high[-1] == 5.0  # the eighth try is hardly worse than the median of those seen


# --- rows ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["min", "max"])
def test_rows_have_the_losses_that_pandas_finds(mode):
    study = dataclasses.replace(TUNED, mode=mode)
    _, members, rows = made_up(study, lost=[(2, 1e-3, 0.01, 1), (8, 1e-2, 0.1, 0), (8, 1e-2, 0.1, 2)])
    want = by_pandas(members, rows, 1 if mode == "min" else -1)
    found = tuned_rows(study, cells(study, members, rows))
    assert [(each.labels, each.failed) for each in found] == [
        ({"latent.size": 2}, 1),
        ({"latent.size": 4}, 0),
        ({"latent.size": 8}, 1),
    ]
    for each in found:
        own = want[want["latent.size"] == each.labels["latent.size"]]
        assert sorted(each.losses) == pytest.approx(sorted(own["loss"]))
        best = own.loc[own["loss"].idxmin()]
        assert (each.best.labels["optim.lr"], each.best.labels["likelihood.variance"]) == tuple(best.iloc[1:3])


@pytest.mark.parametrize(("mode", "draw"), [("min", 0), ("max", 1), ("min", 2)])
def test_sensitivities_are_those_of_pandas(mode, draw):
    study = dataclasses.replace(TUNED, mode=mode)
    _, members, rows = made_up(study, draw, lost=[(2, 1e-3, 0.01, 1), (4, 3e-4, 0.03, 0)])
    want = by_pandas(members, rows, 1 if mode == "min" else -1)
    found = tuned_rows(study, cells(study, members, rows))
    table = want.pivot_table(index=["optim.lr", "likelihood.variance"], columns="latent.size", values="loss")
    above = table - table.min()
    shared = above.sum(axis=1, skipna=False).idxmin()
    for each, lost in zip(found, sensitivities(study, found), strict=True):
        size = each.labels["latent.size"]
        column = above[size].unstack()
        assert lost.median.value == pytest.approx(above[size].sort_values().iloc[7])  # the 8th of 15
        at = column.stack().idxmin()
        for name, line, values, value in (
            ("optim.lr", column[at[1]], RATES, at[0]),
            ("likelihood.variance", column.loc[at[0]], VARIANCES, at[1]),
        ):
            index = values.index(value)
            beside = [values[i] for i in (index - 1, index + 1) if 0 <= i < len(values)]
            assert lost.steps[name] == pytest.approx(max(line[one] for one in beside))
        assert lost.shared == pytest.approx(above.loc[shared, size])


def test_the_loss_at_the_median_has_the_error_of_paired_seeds():
    _, members, rows = made_up(TUNED)
    found = tuned_rows(TUNED, cells(TUNED, members, rows))
    for each, lost in zip(found, sensitivities(TUNED, found), strict=True):
        median = each.cells[each.losses.index(sorted(each.losses)[7])]
        pairs = [median.values("bits_per_dim")[s] - each.best.values("bits_per_dim")[s] for s in (0, 1, 2)]
        assert lost.median.stderr == pytest.approx(stats.sem(pairs))


def test_rows_without_a_common_setting_have_no_shared_one():
    study = dataclasses.replace(
        TUNED,
        grid=(
            Axis("latent.size", (2, 4)),
            Axis("optim.lr", RATES, when=("latent.size", (2,))),
            Axis("likelihood.variance", VARIANCES, when=("latent.size", (4,))),
        ),
    )
    _, members, rows = made_up(study)
    found = tuned_rows(study, cells(study, members, rows))
    assert [each.tuned for each in found] == [("optim.lr",), ("likelihood.variance",)]
    assert [each.shared for each in sensitivities(study, found)] == [None, None]


@pytest.mark.parametrize("changes", [{"compare": ()}, {"compare": ("latent.size", "optim.lr", "likelihood.variance")}])
def test_studies_without_several_configurations_a_row_have_no_curves(changes):
    study = dataclasses.replace(TUNED, **changes)
    _, members, rows = made_up(study)
    assert tuned_rows(study, cells(study, members, rows)) == []


def test_two_configurations_are_too_few():
    study = dataclasses.replace(TUNED, grid=(TUNED.grid[0], Axis("optim.lr", RATES[:3])))
    _, members, rows = made_up(study)
    assert len(tuned_rows(study, cells(study, members, rows))) == 3
    rows = {m.key: rows[m.key] for m in members if m.config.latent.size == 2 or m.config.optim.lr > RATES[0]}
    assert tuned_rows(study, cells(study, members, rows)) == []


def test_one_row_alone_and_rows_without_results_have_no_curves():
    _, members, rows = made_up(TUNED)
    rows = {m.key: rows[m.key] for m in members if m.config.latent.size == 2}
    assert tuned_rows(TUNED, cells(TUNED, members, rows)) == []


@pytest.mark.parametrize(
    ("changes", "why"),
    [({"sampler": "random"}, ""), ({"sampler": "tpe"}, "by earlier results"), ({"halving": 3}, "early stopping")],
)
def test_only_random_searches_are_samples_of_their_space(changes, why):
    search: Search = dataclasses.replace(SEARCH.search, **({"sampler": "random"} | changes))
    text = unsuited(dataclasses.replace(SEARCH, search=search))
    assert why in text
    assert bool(text) == bool(why)


# --- on the page ------------------------------------------------------------------------------------------------------


def test_the_page_names_the_leaders_and_the_rows_that_need_least_and_most_tuning():
    plan, members, rows = made_up(TUNED, draw=3)
    want = by_pandas(members, rows)
    files = report(plan, members, rows)
    page = html.unescape(files["index.html"].decode())
    (note,) = re.findall(r'<p class="note">(Best if one configuration is tried.*?)</p>', page)
    by_row = {size: np.sort(own) for size, own in want.groupby("latent.size")["loss"]}
    lost = {size: losses[7] - losses[0] for size, losses in by_row.items()}
    first, last = min(by_row, key=lambda s: by_row[s][7]), min(by_row, key=lambda s: by_row[s][0])
    assert f"is tried: number of latents {first}" in note
    assert first != last
    assert re.findall(r"from \d+ on: number of latents (\d+)", note)[-1] == str(last)
    assert (
        f"near its own best: number of latents {min(lost, key=lost.get)}, which loses {min(lost.values()):.2g} bits/dim"
        in note
    )
    assert f"most: number of latents {max(lost, key=lost.get)}, {max(lost.values()):.2g}." in note
    assert files["figures/grid-tuning.png"].startswith(b"\x89PNG")
    assert b"lost_at_median" in files["tables/grid-tuning.csv"]


def test_a_search_that_is_no_sample_says_why_there_are_no_curves():
    study = dataclasses.replace(SEARCH, grid=(Axis("latent.size", (2, 4)),), compare=("latent.size",))
    plan = Plan(Sweep("small", "Small", (study,)))
    files = report(plan, [], {}, drawn=False)
    assert "There are no tuning curves: the sampler" in html.unescape(files["index.html"].decode())
