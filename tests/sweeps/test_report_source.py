"""Labels, numbers, counts and "best" of the report equal those computed with pandas from results.parquet."""

import dataclasses
import random
import re

import pandas as pd
import pytest
from scripted import GRID, row

from search_spaces.figures import Heatmap
from search_spaces.space import Sweep
from sweeps.analysis.frames import results_table
from sweeps.planning.plan import Plan
from sweeps.report.html import report

LR, VARIANCE, BITS = "config.optim.lr", "config.likelihood.variance", "metrics.bits_per_dim"
BY_ROW = dataclasses.replace(GRID, seeds=(0, 1, 2), figures=(Heatmap("optim.lr", "likelihood.variance"),))
EVERY_CELL = dataclasses.replace(BY_ROW, compare=("optim.lr", "likelihood.variance"))


def made_up(study, draw: int):
    """A plan, its members, and their rows; some are failed, stopped or missing."""
    generator = random.Random(draw)
    plan = Plan(Sweep("small", "Small", (study,)))
    members = plan.members["grid"]
    rows = {}
    for member in members:
        status = generator.choices(["finished", "failed", "stopped"], [8, 1, 1])[0]
        # Seeds are missing only in configurations that a failure ranks last anyway.
        if (member.config.optim.lr, member.config.likelihood.variance) == (1e-2, 0.1):
            status = {0: "failed", 1: None, 2: "finished"}[member.config.seed]
        if status is not None:
            metrics = {} if status == "failed" else {"bits_per_dim": generator.uniform(1, 2), "kl": generator.random()}
            reason = "diverged" if status == "failed" else None
            rows[member.key] = row(member, status=status, reason=reason, metrics=metrics)
    return plan, members, rows


def of_pandas(members, rows) -> pd.DataFrame:
    """A row for each configuration: mean, seeds, and counts of members by status."""
    results = results_table(members, rows, {})
    cells = pd.crosstab([results[LR], results[VARIANCE]], results["status"])
    cells = cells.reindex(columns=["finished", "failed", "stopped", "planned"], fill_value=0)
    finished = results[results["status"] == "finished"]
    cells["mean"] = finished.groupby([LR, VARIANCE])[BITS].mean()
    cells["whole"] = cells["failed"] + cells["stopped"] == 0
    return cells.reset_index()


def best(cells: pd.DataFrame) -> pd.Series:
    """The configuration with the least mean; configurations that lost a seed count only if there are no others."""
    done = cells[cells["mean"].notna()]
    return (done[done["whole"]] if done["whole"].any() else done).sort_values("mean").iloc[0]


def table(page: str, name: str) -> tuple[list[str], list[list[tuple[str, str]]]]:
    """The headings of a table on the page, and (text, value) of its fields."""
    text = page.split(f'aria-label="Table: {name}"')[1].split("</table>")[0]
    text = re.sub('<span class="pad">[^<]*</span>', "", text)
    headings = re.findall(r'<th scope="col"[^>]*>(.*?)</th>', text)
    body = text.split("<tbody>")[1].split("</tr>")[:-1]
    field = re.compile(r'<t[hd][^>]*data-order="([^"]*)">(.*?)</t[hd]>')
    return headings, [[(shown, value) for value, shown in field.findall(line)] for line in body]


def check(headings, fields, cell: pd.Series, starred: bool) -> None:
    """Asserts that a row of the page agrees with pandas."""
    shown = dict(zip(headings, fields, strict=True))
    assert shown["learning rate"][0] == f"{cell[LR]:.4g}"
    assert shown["variance"][0] == f"{cell[VARIANCE]:.4g}"
    # A configuration without a finished seed has an empty value, NaN in pandas.
    assert float(shown["bits/dim"][1] or "nan") == pytest.approx(cell["mean"], rel=1e-12, nan_ok=True)
    first = re.match(r"[\d.]+|–", shown["bits/dim"][0])[0]
    assert float(first.replace("–", "nan")) == pytest.approx(cell["mean"], abs=0.05, nan_ok=True)
    assert ("★" in shown["bits/dim"][0]) == starred
    assert shown["seeds"][0] == (str(cell["finished"]) if cell["finished"] == 3 else f"{cell['finished']} of 3")
    words = {"failed": "failed", "stopped": "stopped early", "planned": "missing"}
    unfinished = shown.get("not finished", ("", ""))[0]  # the column is left out if it is empty
    assert unfinished == ", ".join(f"{cell[s]} {word}" for s, word in words.items() if cell[s])


@pytest.mark.parametrize("draw", range(12))
@pytest.mark.parametrize("study", [BY_ROW, EVERY_CELL], ids=["by row", "every cell"])
def test_the_page_says_what_the_results_say(study, draw):
    plan, members, rows = made_up(study, draw)
    page = report(plan, members, rows, drawn=False)["index.html"].decode()
    cells = of_pandas(members, rows)
    winner = best(cells)
    sentence = re.search(r'<p class="answer">(.*?)</p>', page, flags=re.DOTALL)[1]
    assert sentence.startswith(f"Best: learning rate {winner[LR]:.4g}, variance {winner[VARIANCE]:.4g}, bits/dim ")
    assert f"(n = {winner['finished']})" in sentence
    totals = cells[["finished", "failed", "stopped", "planned"]].sum()
    counts = f"{totals['finished']} of 12 trainings finished; {totals['failed']} failed"
    counts += f", {totals['stopped']} stopped early" * bool(totals["stopped"]) + ", 1 missing"
    assert counts in page
    if study is BY_ROW:
        expected = [best(group) for _, group in cells.groupby(LR)]
    else:
        expected = [cell for _, cell in cells.iterrows()]
    headings, lines = table(page, "grid")
    assert len(lines) == len(expected)
    for fields, cell in zip(lines, expected, strict=True):
        starred = (cell[LR], cell[VARIANCE]) == (winner[LR], winner[VARIANCE])
        check(headings, fields, cell, starred)


@pytest.mark.parametrize("draw", range(3))
def test_the_heatmap_stars_the_best_of_the_results(draw, monkeypatch):
    plan, members, rows = made_up(EVERY_CELL, draw)
    page = report(plan, members, rows)["index.html"].decode()
    winner = best(of_pandas(members, rows))
    alt = re.search(r'alt="(Heatmap: [^"]*)"', page)[1]
    where = f"learning rate {winner[LR]:.4g}, variance {winner[VARIANCE]:.4g}"
    assert alt.endswith(f"The best is {winner['mean']:.3f} at {where}.")
