import math
import re

import pytest
from scripted import BASE, SMALL, row

from search_spaces.figures import Heatmap
from search_spaces.space import Axis, Study, Sweep
from sweeps.plan import Plan
from sweeps.report import tables
from sweeps.report.html import render
from sweeps.frames import history_table, results_table

MAP = Study(
    name="map",
    title="A <map>",
    source="nowhere",
    base=BASE
    | {
        "latent": {"family": "categorical", "size": 2, "categories": 3},
        "estimator": {"name": "decoupled_st_gs"},
    },
    grid=(Axis("estimator.temperature_forward", (0.5, 1.0)), Axis("estimator.temperature_backward", (0.5, 1.0))),
    seeds=(0, 1),
    compare=("estimator.temperature_forward", "estimator.temperature_backward"),
    figures=(Heatmap("estimator.temperature_forward", "estimator.temperature_backward"),),
)
PLAN = Plan(Sweep("mapped", "Mapped", (MAP,)))
MEMBERS = PLAN.members["map"]


def rows_with(best: tuple[float, float]) -> dict:
    def bits(member):
        e = member.config.estimator
        pair = (e.temperature_forward, e.temperature_backward)
        return (1.0 if pair == best else 2.0) + 0.2 * member.config.seed

    return {m.key: row(m, metrics={"bits_per_dim": bits(m)}) for m in MEMBERS}


def test_cells_hold_mean_and_standard_error_over_seeds():
    cell = tables.ranked(MAP, tables.cells(MAP, MEMBERS, rows_with((0.5, 1.0))))[0]
    assert cell.labels == {"estimator.temperature_forward": 0.5, "estimator.temperature_backward": 1.0}
    assert (cell.n, cell.planned) == (2, 2)
    assert cell.mean["bits_per_dim"] == pytest.approx(1.1)
    assert cell.stderr["bits_per_dim"] == pytest.approx(0.1)


def test_the_best_of_each_compared_row_is_chosen_by_the_mean():
    grid = SMALL.studies[0]
    members = Plan(SMALL).members["grid"]
    rows = {m.key: row(m, metrics={"bits_per_dim": m.config.likelihood.variance}) for m in members}
    found = tables.compared(grid, tables.cells(grid, members, rows))
    assert [(c.labels["optim.lr"], c.labels["likelihood.variance"]) for c in found] == [(1e-3, 0.01), (1e-2, 0.01)]


def test_a_maximized_metric_ranks_the_other_way():
    import dataclasses

    found = tables.cells(MAP, MEMBERS, rows_with((0.5, 1.0)))
    best = tables.ranked(dataclasses.replace(MAP, mode="max"), found)[0]
    assert best.mean["bits_per_dim"] == pytest.approx(2.1)


@pytest.mark.parametrize(("best", "place"), [((0.5, 1.0), "off"), ((1.0, 1.0), "on")])
def test_the_verdict_names_the_best_cell_and_whether_it_is_off_the_diagonal(best, place):
    page = render(PLAN, MEMBERS, rows_with(best)).decode()
    assert f"temperature_forward {best[0]:g}, temperature_backward {best[1]:g}" in page
    assert f"It lies {place} the diagonal" in page
    assert page.count("data:image/png;base64,") == 1
    assert "A &lt;map&gt;" in page
    assert not re.search(r'(src|href)="(?!data:)', page)


def test_missing_and_failed_members_are_counted():
    rows = rows_with((0.5, 1.0))
    del rows[MEMBERS[0].key]
    rows[MEMBERS[2].key] = row(MEMBERS[2], status="failed", reason="diverged", epochs=3, metrics={})
    page = render(PLAN, MEMBERS, rows).decode()
    assert "6 of 8 trainings finished" in page
    assert "1 of 2" in page
    assert "diverged in epoch 3" in page


def test_a_report_of_nothing_says_so():
    assert "Nothing has finished yet" in render(PLAN, MEMBERS, {}).decode()


def test_result_tables_have_a_row_a_member_and_a_row_an_epoch():
    rows = rows_with((0.5, 1.0))
    del rows[MEMBERS[0].key]
    table = results_table(MEMBERS, rows, {("map", MEMBERS[1].key): "run"})
    assert list(table["key"]) == [m.key for m in MEMBERS]
    assert list(table["status"]) == ["planned"] + ["finished"] * 7
    assert table["config.optim.lr"].notna().all()
    assert table["mlflow_run_id"][1] == "run"
    assert math.isnan(table["metrics.bits_per_dim"][0])
    history = history_table(MEMBERS, rows)
    assert len(history) == 14
    assert list(history["epoch"][:2]) == [1, 2]
