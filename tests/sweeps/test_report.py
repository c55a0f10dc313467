import dataclasses
import html
import io
import math
import re
from unittest.mock import Mock

import pandas as pd
import pytest
from PIL import Image
from rich.console import Console
from scripted import BASE, GRID, SMALL, launch_options, row

from search_spaces import get_sweep, published
from search_spaces.derived import reduced
from search_spaces.figures import Curves, Heatmap, Lines
from search_spaces.published import Number
from search_spaces.scale import SMOKE
from search_spaces.space import Axis, Claim, Study, Sweep, Variants
from sweeps.analysis import cells as tables
from sweeps.analysis.frames import history_table, results_table
from sweeps.analysis.labels import label
from sweeps.driver import launch
from sweeps.errors import UserError
from sweeps.planning.plan import Overrides, Plan
from sweeps.report import exports
from sweeps.report.html import report
from sweeps.report.plots import in_legend
from sweeps.report.study_table import study_table

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


def page_of(plan, members, rows) -> str:
    """The text of the page, without its figures."""
    return report(plan, members, rows, drawn=False)["index.html"].decode()


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
    assert cell.average("bits_per_dim").stderr == pytest.approx(0.1)


def test_the_best_of_each_compared_row_is_chosen_by_the_mean():
    grid = SMALL.studies[0]
    members = Plan(SMALL).members["grid"]
    rows = {m.key: row(m, metrics={"bits_per_dim": m.config.likelihood.variance}) for m in members}
    found = tables.compared(grid, tables.cells(grid, members, rows))
    assert [(c.labels["optim.lr"], c.labels["likelihood.variance"]) for c in found] == [(1e-3, 0.01), (1e-2, 0.01)]


def test_a_maximized_metric_ranks_the_other_way():
    found = tables.cells(MAP, MEMBERS, rows_with((0.5, 1.0)))
    best = tables.ranked(dataclasses.replace(MAP, mode="max"), found)[0]
    assert best.mean["bits_per_dim"] == pytest.approx(2.1)


@pytest.mark.parametrize(("best", "place"), [((0.5, 1.0), "off"), ((1.0, 1.0), "on")])
def test_the_verdict_names_the_best_cell_and_whether_it_is_off_the_diagonal(best, place):
    files = report(PLAN, MEMBERS, rows_with(best))
    page = files["index.html"].decode()
    assert f"temperature (forward) {best[0]:g}, temperature (backward) {best[1]:g}" in page
    assert f"It lies {place} the diagonal" in page
    assert page.count("data:image/svg+xml;base64,") == 1
    assert "A &lt;map&gt;" in page
    links = re.findall(r'(?:src|href)="(?!data:|#)([^"]*)"', page)
    assert set(links) == set(files) - {"index.html"}  # each file is linked, and nothing from elsewhere


def test_the_best_pair_is_held_against_the_best_of_the_diagonal():
    page = page_of(PLAN, MEMBERS, rows_with((0.5, 1.0)))
    rival = "temperature (forward) 0.5, temperature (backward) 0.5"
    assert f"Against the best on the diagonal ({rival}): better by +1" in page
    assert "2 paired seeds; a test needs 5 (--seeds 5)" in page


def test_missing_and_failed_members_are_counted():
    rows = rows_with((0.5, 1.0))
    del rows[MEMBERS[0].key]
    rows[MEMBERS[2].key] = row(MEMBERS[2], status="failed", reason="diverged", epochs=3, metrics={})
    page = page_of(PLAN, MEMBERS, rows)
    assert "6 of 8 trainings finished; 1 failed, 1 missing" in page
    assert "1 of 2" in page
    assert "diverged in epoch 3" in page
    assert "1 failed, 1 missing" in page


def test_a_report_of_nothing_says_so():
    assert "Nothing has finished yet" in page_of(PLAN, MEMBERS, {})


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


# --- published numbers ------------------------------------------------------------------------------------------------

AS_PRINTED = Overrides()
PAPER = (
    Number(labels={"optim.lr": 1e-3}, metric="bits_per_dim", value=0.5, stderr=0.125),
    Number(labels={"optim.lr": 1e-2}, metric="bits_per_dim", value=0.75, epoch=1),
    Number(labels={"optim.lr": 0.5}, metric="bits_per_dim", value=9.0),
)


@pytest.fixture
def printed(monkeypatch) -> Study:
    """A study with published numbers."""
    monkeypatch.setattr(published, "_shipped", lambda: {"paper": PAPER})
    return dataclasses.replace(
        GRID, published="paper", claims=(Claim("low wins", {"optim.lr": 1e-3}, {"optim.lr": 1e-2}),)
    )


def reported(study: Study, overrides: Overrides = AS_PRINTED, sweep=None, drawn: bool = False):
    plan = Plan(sweep or Sweep("small", "Small", (study,)), overrides)
    members = plan.members["grid"]
    rows = {m.key: row(m, metrics={"bits_per_dim": 1.25 + m.config.seed, "kl": 3.0}) for m in members}
    return report(plan, members, rows, drawn)


def test_published_numbers_stand_beside_ours_with_the_difference(printed):
    files = reported(printed)
    table = pd.read_csv(io.BytesIO(files["tables/grid.csv"])).set_index("optim.lr")
    assert table.loc[1e-3, "bits_per_dim_mean"] == 1.75
    assert table.loc[1e-3, "bits_per_dim_published"] == 0.5
    assert table.loc[1e-3, "bits_per_dim_difference"] == 1.25
    assert math.isnan(table.loc[1e-2, "bits_per_dim_published"])
    page = files["index.html"].decode()
    assert "0.50 ± 0.12" in page
    assert "+1.250" in page
    assert "1 of 3 published numbers have no row or column in this run" in page


def test_numbers_published_for_an_epoch_are_held_against_that_epoch(printed):
    table = pd.read_csv(io.BytesIO(reported(printed)["tables/grid.csv"])).set_index("optim.lr")
    # History of a scripted member: its quality plus 1, then its quality, which is seed / 100 at this rate.
    assert table.loc[1e-2, "bits_per_dim@1_mean"] == pytest.approx(1.005)
    assert table.loc[1e-2, "bits_per_dim@1_difference"] == pytest.approx(0.255)


# --- results that are not comparable ----------------------------------------------------------------------------------

MARK = "NOT COMPARABLE WITH THE PAPER"


def marked(files: dict[str, bytes]) -> None:
    """Asserts that every file of a report says that its results are not comparable."""
    page = files["index.html"].decode()
    assert page.index(MARK) < page.index("<main>")
    assert page.count(MARK) == 1  # one banner
    captions = re.findall(r"<figcaption.*?</figcaption>", page, flags=re.DOTALL)
    assert len(captions) >= 3
    assert all('href="#not-comparable">not comparable</a>' in caption for caption in captions)
    tables = page.split('<figure class="table">')[1:]
    assert len(tables) >= 2
    assert all('<table class="data mark' in table for table in tables)
    for path, content in files.items():
        if path.startswith("tables/"):
            assert MARK in content.decode(), path


def test_a_reduced_sweep_is_marked_at_the_top_and_on_every_table_and_figure(printed):
    study = dataclasses.replace(printed, figures=(Lines("likelihood.variance", series="optim.lr"),))
    files = reported(study, sweep=reduced(Sweep("small", "Small", (study,)), SMOKE), drawn=True)
    marked(files)
    assert "at most 2 epochs" in files["index.html"].decode()


def test_a_mark_is_drawn_into_the_figure_itself(printed):
    study = dataclasses.replace(printed, figures=(Lines("likelihood.variance", series="optim.lr"),))

    def red(files) -> int:
        pixels = Image.open(io.BytesIO(files["figures/grid-figure1.png"])).convert("RGB").get_flattened_data()
        return sum(pixel == (0xB0, 0x00, 0x20) for pixel in pixels)

    assert red(reported(study, drawn=True)) == 0
    assert red(reported(study, Overrides(values=(("epochs", 2),)), drawn=True)) > 100


def test_changed_settings_and_stand_in_images_are_marks(printed):
    study = dataclasses.replace(printed, base=GRID.base | {"data": {"name": "mnist"}}, figures=(Curves("optim.lr"),))
    marked(reported(study, Overrides(values=(("epochs", 1),)), drawn=True))
    files = reported(study, Overrides(stand_ins=(("mnist", "digits"),)), drawn=True)
    marked(files)
    assert "digits in place of mnist" in files["index.html"].decode()


def test_a_sweep_as_it_is_printed_has_no_mark(printed):
    files = reported(printed, drawn=True)
    assert not any(MARK.encode() in content for content in files.values())
    assert b"not comparable" not in files["index.html"]


# --- figures and files ------------------------------------------------------------------------------------------------


def test_figures_are_png_and_pdf_and_tables_csv_and_latex():
    figures = (
        Heatmap("optim.lr", "likelihood.variance"),
        Lines("optim.lr", series="likelihood.variance", log_x=True),
        Curves("optim.lr", target=1.0),
        Lines("optim.lr", panels="likelihood.variance"),
    )
    files = reported(dataclasses.replace(GRID, figures=figures), drawn=True)
    stems = {f"figures/grid-figure{index}" for index in ("1", "2", "3", "4-1", "4-2")}
    assert {path for path in files if path.startswith("figures/")} == {
        f"{s}.{kind}" for s in stems for kind in ("png", "pdf")
    }
    for path, content in files.items():
        if path.endswith(".png"):
            assert min(Image.open(io.BytesIO(content)).size) > 200
        if path.endswith(".pdf"):
            assert content.startswith(b"%PDF")
    latex = files["tables/grid.tex"].decode()
    assert r"\toprule" in latex
    assert r"$\pm$" in latex
    target = pd.read_csv(io.BytesIO(files["tables/grid-figure3-target.csv"])).set_index("optim.lr")
    # At 1e-3 the scripted histories are 2, 1 and, for seed 1, 2.01, 1.01.
    assert target.loc[1e-3, "epochs_mean"] == 2
    assert target.loc[1e-3, "seeds_that_reach_it"] == 1
    assert target.loc[1e-3, "wall_s_mean"] == 0.5


def test_searches_have_optunas_plots_and_what_cannot_be_drawn_says_why():
    plan = Plan(SMALL, Overrides(only="searched"))
    study = plan.studies[0]
    (cell,) = plan.cells(study)
    members = [m for lr in (1e-3, 3e-3, 1e-2, 3e-2) for m in plan.members_of(cell, {"optim.lr": lr})]
    rows = {m.key: row(m) for m in members}
    files = report(plan, members, rows)
    kinds = {"history", "importances", "parallel", "contour", "slice", "rank", "timeline"}
    page = files["index.html"].decode()
    for kind in kinds:
        drawn = f"figures/searched-search-{kind}.png" in files
        assert drawn or "Optuna cannot draw it" in page, kind
    assert {f"figures/searched-search-{kind}.pdf" for kind in ("history", "slice", "timeline")} <= set(files)
    nothing = report(plan, members, {})
    assert not any(path.startswith("figures/") for path in nothing)
    assert "no suggestion has finished" in nothing["index.html"].decode()


# --- names with special characters, and failures after training -------------------------------------------------------


@pytest.mark.parametrize("name", ["npz:$frac {x$/a.npz", "npz:a_b^{.npz", "npz:\\alpha & 100 %.npz"])
def test_any_name_can_stand_in_figures_and_tables(printed, name):
    """A `$` starts a formula in matplotlib; `&`, `%` and `_` are special in LaTeX."""
    figures = (Heatmap("data.name", "likelihood.variance"), Curves("data.name"), Lines("optim.lr", series="data.name"))
    study = dataclasses.replace(printed, grid=(Axis("data.name", (name,)), *GRID.grid), figures=figures)
    plan = Plan(Sweep("small", "Small", (study,)), Overrides(values=(("data.name", name),)))
    members = plan.members["grid"]
    files = report(plan, members, {m.key: row(m) for m in members})
    assert len([path for path in files if path.startswith("figures/")]) >= 6
    assert html.escape(name) in files["index.html"].decode()


@pytest.mark.parametrize(("status", "code"), [("finished", 0), ("failed", 3)])
@pytest.mark.parametrize("error", [ValueError("no such glyph"), UserError("no space left"), KeyError("x")])
def test_a_report_that_fails_costs_one_line_and_no_result(storage, ledger, monkeypatch, capsys, error, status, code):
    def fails(*_, **__):
        raise error

    monkeypatch.setattr(launch, "write_outputs", fails)
    monkeypatch.setattr(launch, "Tracker", lambda *_: Mock(problem=None, run_ids={}, links=dict))
    plan = Plan(Sweep("small", "Small", (GRID,)))
    ledger.append([row(member, status=status, reason="diverged") for member in plan.members["grid"]])
    assert launch.launch(plan, storage, launch_options(), Console(width=200)) == code
    told = [line for line in capsys.readouterr().out.splitlines() if type(error).__name__ in line]
    assert len(told) == 1
    assert f"python -m sweeps.report small --storage {storage.uri}" in told[0]
    assert len(ledger.read()) == 8


FIGURE_6 = Plan(get_sweep("paper_grid"), Overrides(only="dst/fig6_forward"))


@pytest.mark.parametrize(("lacking", "drawn"), [(90, 1), (1, 2), (0, 2)])
def test_a_metric_that_an_earlier_version_did_not_measure_is_told_and_gives_no_empty_figure(lacking, drawn):
    (members,) = FIGURE_6.members.values()
    assert len(members) == 90
    old = {"gradient_bias_over_exact": 0.5, "bce": 90.0}
    rows = {
        member.key: row(
            member, metrics=old if number < lacking else old | {"gradient_spread": 2.0 + member.config.seed}
        )
        for number, member in enumerate(members)
    }
    page = report(FIGURE_6, members, rows)["index.html"].decode()
    assert page.count("<img ") == drawn
    told = re.findall(
        r"(\d+) of 90 finished trainings have no ([^,]*), so (there is no figure|the figure leaves)", page
    )
    expected = {90: [("90", "there is no figure")], 1: [("1", "the figure leaves")], 0: []}
    assert [(count, rest) for count, _, rest in told] == expected[lacking]


def test_finished_trainings_without_the_metric_of_their_study_are_not_called_unfinished():
    (members,) = FIGURE_6.members.values()
    page = report(FIGURE_6, members, {m.key: row(m, metrics={"bce": 90.0}) for m in members})["index.html"].decode()
    assert "No finished training has a finite" in page
    assert "Nothing has finished yet" not in page
    assert "<img " not in page


@pytest.mark.parametrize("first", [None, 2])
def test_tables_tell_none_from_no_value_and_keep_whole_numbers(first):
    shown = "none" if first is None else "2"
    guided = {"estimator": {"name": "silent"}, "guide": {"annealing_rate": 0.1}}
    grid = (Variants("sg", {"with": guided, "without": {}}), Axis("guide.freeze_epoch", (first, 1), ("sg", ("with",))))
    study = Study(name="nones", title="", source="", base=BASE, grid=grid, compare=("sg", "guide.freeze_epoch"))
    members = Plan(Sweep("nones", "", (study,))).members["nones"]
    rows = {m.key: row(m, metrics={"bits_per_dim": 1.0}) for m in members}
    table = study_table(study, tables.cells(study, members, rows), "")
    assert [record.text for record in (one[1] for one in table.rows)] == [shown, "1", ""]
    lines = exports.csv(table).decode().splitlines()
    assert [line.split(",")[:2] for line in lines[1:]] == [["with", shown], ["with", "1"], ["without", ""]]


def test_a_table_of_no_known_member_counts_none():
    assert "of 0 members" not in study_table(GRID, [], "").caption


def test_long_labels_leave_room_for_the_curves():
    names = [f"{'a long name ' * 16}{end}" for end in ("one", "two")]
    short = [in_legend(name) for name in names]
    assert all(len(text) <= 40 for text in short)
    assert len(set(short)) == 2
    assert in_legend("Silent Gradients, continuous") == "Silent Gradients, continuous"
    assert in_legend(0.001) == label(0.001)
