"""One rule says which configuration is best, for winners, in tables and in the report."""

import dataclasses
import math
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted import BASE, row

from search_spaces.space import Axis, Study, Sweep, Winner
from sweeps.analysis import cells as tables
from sweeps.analysis.best import best
from sweeps.analysis.summary import summary
from sweeps.planning.plan import Plan
from sweeps.planning.unfold import choose
from sweeps.report.study_table import study_table

RATES = (0.1, 0.2, 0.3, 0.4)
SEEDS = (0, 1, 2)
STUDY = Study(name="s", title="", source="", base=BASE, grid=(Axis("optim.lr", RATES),), seeds=SEEDS)
TAKES = Winner("s", ("optim.lr",))

# Few values, so that means are often equal; None is a seed without the metric.
VALUE = st.sampled_from([0.0, 1.0, 2.0, 0.5, -1.5, math.nan, math.inf, -math.inf, None])
ENDED = st.tuples(st.sampled_from(["finished"] * 4 + ["failed", "stopped"]), VALUE)
TABLE = st.lists(st.lists(ENDED, min_size=len(SEEDS), max_size=len(SEEDS)), min_size=len(RATES), max_size=len(RATES))


def oracle(table, mode):
    """The best rate by exact arithmetic, comparing configurations in pairs."""
    best = None
    for rate, seeds in zip(RATES, table, strict=True):
        good = [Fraction(v) for status, v in seeds if status == "finished" and v is not None and math.isfinite(v)]
        if not good:
            continue
        mean, whole = sum(good) / len(good), len(good) == len(seeds)
        better = best is None or (whole and not best[2])
        if best is not None and whole == best[2]:
            better = mean < best[1] if mode == "min" else mean > best[1]
        if better:
            best = (rate, mean, whole)
    return None if best is None else best[0]


def rows_of(members, table):
    found = {}
    for member in members:
        seeds = table[RATES.index(member.config.optim.lr)]
        status, value = seeds[member.config.seed]
        metrics = {"elbo": 1.0} | ({} if value is None else {"bits_per_dim": value})
        found[member.key] = row(member, status=status, metrics=metrics)
    return found


@settings(deadline=None, max_examples=150)
@given(TABLE, st.sampled_from(["min", "max"]))
def test_whoever_asks_for_the_best_gets_the_same_one(table, mode):
    study = dataclasses.replace(STUDY, mode=mode)
    plan = Plan(Sweep("s", "", (study,)))
    members = plan.members["s"]
    rows = rows_of(members, table)
    expected = oracle(table, mode)
    taken = choose(study, TAKES, {}, members, rows)
    assert (taken.values["optim.lr"] if taken else None) == expected
    cells = tables.ranked(study, tables.cells(study, members, rows))
    assert (cells[0].labels["optim.lr"] if cells else None) == expected
    told = summary(plan, members, rows, trained=0).best
    assert [best.labels["optim.lr"] for best in told] == ([] if expected is None else [expected])


def test_seeds_that_have_not_ended_count_neither_way():
    members = Plan(Sweep("s", "", (STUDY,))).members["s"]
    rows = rows_of(members, [[("finished", 1.0)] * 3, [("finished", 0.5)] * 3] + [[("finished", 2.0)] * 3] * 2)
    last = next(member for member in members if member.config.optim.lr == 0.2 and member.config.seed == 2)
    del rows[last.key]
    best, *_ = tables.ranked(STUDY, tables.cells(STUDY, members, rows))
    assert best.labels == {"optim.lr": 0.2}


@pytest.mark.parametrize("lacking", [{}, {"bits_per_dim": math.nan}, {"bits_per_dim": -math.inf}])
def test_seeds_are_counted_that_have_a_value_of_the_metric(lacking):
    plan = Plan(Sweep("three", "", (dataclasses.replace(STUDY, grid=()),)))
    members = plan.members["s"]
    values = [{"bits_per_dim": 3.0, "elbo": 1.0}, {"bits_per_dim": 4.0, "elbo": 1.0}, {"elbo": 1.0} | lacking]
    rows = {m.key: row(m, metrics=own) for m, own in zip(members, values, strict=True)}
    (study,) = plan.studies
    assert str(best(study, members, rows)) == "bits_per_dim 3.5 (n = 2 of 3)"
    table = study_table(study, tables.cells(study, members, rows), "")
    assert table.records[0]["seeds"] == 2
    assert "2 of 3" in [entry.text for entry in table.rows[0]]
