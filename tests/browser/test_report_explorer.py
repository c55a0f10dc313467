"""The report in a browser: values on hover, brushing, comparing, and the page without scripts."""

import itertools
import re

import pandas as pd
import pytest

from search_spaces.figures import Curves, Heatmap, Lines
from search_spaces.space import Axis, Study, Sweep, Variants
from sweeps.planning.plan import Plan
from sweeps.records.ledger import Row, now
from sweeps.report.html import report as written

expect = pytest.importorskip("playwright.sync_api", reason="playwright is not installed").expect
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
TEMPERATURES = ["config.estimator.temperature_forward", "config.estimator.temperature_backward"]


@pytest.fixture(scope="module")
def results(quickstart) -> pd.DataFrame:
    return pd.read_parquet(quickstart / "quickstart" / "results.parquet")


@pytest.fixture(scope="module")
def history(quickstart) -> pd.DataFrame:
    return pd.read_parquet(quickstart / "quickstart" / "history.parquet")


@pytest.fixture
def report(page, quickstart):
    """The page, opened offline; `page.complaints` collects its errors."""
    page.complaints = []
    page.on("console", lambda message: page.complaints.append(message.text))
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.context.set_offline(True)
    page.goto((quickstart / "quickstart" / "report" / "index.html").as_uri())
    page.wait_for_selector("html[data-ready]")
    yield page
    assert page.complaints == []


BASE = {
    "latent": {"family": "gaussian", "size": 4},
    "encoder": {"name": "mlp", "hidden": (8,)},
    "decoder": {"name": "linear"},
    "likelihood": {"name": "gaussian_fixed"},
    "estimator": {"name": "silent"},
    "optim": {"name": "adam"},
    "epochs": 2,
    "batch_size": 500,
}


def ended(member) -> Row:
    """A made-up result."""
    bits = member.config.optim.lr * member.config.batch_size + member.config.seed
    return Row(
        key=member.key,
        status="finished",
        epochs=2,
        wall_s=1,
        ended=now(),
        config=member.config.model_dump(mode="json"),
        metrics={"bits_per_dim": bits},
        history={"bits_per_dim": [bits + 1, bits]},
    )


def section(page, study: str):
    return page.locator(f"section[aria-labelledby={study}]")


def hovered(page, chart, steps: int = 24) -> list[str]:
    """The distinct texts shown while the mouse passes over all of a chart."""
    chart.scroll_into_view_if_needed()
    box = chart.bounding_box()
    texts = {}
    for i, j in itertools.product(range(1, steps), repeat=2):
        page.mouse.move(box["x"] + i / steps * box["width"], box["y"] + j / steps * box["height"])
        tip = chart.evaluate("chart => [...chart.children].map(each => each.innerText).filter(Boolean).join()")
        texts[tip] = None
    return [text for text in texts if text]


def explored(page, study: str):
    """The opened explorer of a study."""
    details = section(page, study).locator("details.explorer")
    details.locator("> summary").click()
    expect(details.locator(".pair")).to_be_visible()
    return details


def numbers(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"-?[\d.]+(?:e-?\d+)?", text)]


def close(shown: float, exact: float, digits: int) -> bool:
    return abs(shown - exact) <= 10**-digits * max(1, abs(exact))


def test_a_heatmap_shows_the_mean_of_every_field_on_hover(report, results):
    chart = section(report, "temperatures").locator("figure div.chart").first
    section(report, "temperatures").locator("figure:not(.table)").first.scroll_into_view_if_needed()
    expect(chart).to_be_visible()
    shown = {tuple(numbers(text)[:2]): numbers(text)[2] for text in hovered(report, chart)}
    own = results[results["study"] == "temperatures"].groupby(TEMPERATURES)["metrics.elbo"].mean()
    assert shown.keys() == set(own.index)
    assert all(close(shown[pair], own[pair], 2) for pair in shown)


def test_learning_curves_show_their_values_on_hover(report, results, history):
    figure = section(report, "estimators").locator("figure:not(.table)").first
    figure.scroll_into_view_if_needed()
    expect(figure.locator("div.chart")).to_be_visible()
    texts = hovered(report, figure.locator("div.chart"))
    ours = results[results["study"] == "estimators"]
    bits = ours.set_index("key")["metrics.bits_per_dim"]
    named = {("gaussian", "silent"): "Gaussian, silent", ("bernoulli", "reinforce"): "Bernoulli, REINFORCE"}
    for (family, estimator), name in named.items():
        same = ours[(ours["config.latent.family"] == family) & (ours["config.estimator.name"] == estimator)]
        curve = history[history["key"] == bits[same["key"]].idxmin()].set_index("epoch")["metrics.bits_per_dim"]
        for epoch, exact in curve.items():
            (text,) = {
                line
                for text in texts
                if text.startswith(f"epoch {epoch}\n")
                for line in text.splitlines()
                if line.startswith(f"{name}: ")
            }
            assert close(numbers(text.removeprefix(name))[0], exact, 3)


def test_rows_are_filtered_by_what_is_typed(report):
    study = section(report, "temperatures")
    table = study.get_by_role("region", name="Table: temperatures", exact=True)
    assert table.locator("tbody tr").count() == 16
    study.get_by_label("Filter rows").first.fill("★")
    assert 1 <= table.locator("tbody tr").count() < 16
    assert all("★" in text for text in table.locator("tbody tr").all_inner_texts())
    study.get_by_label("Filter rows").first.fill("")
    assert table.locator("tbody tr").count() == 16


def test_brushing_an_axis_picks_the_members_between_its_ends(report, results):
    details = explored(report, "temperatures")
    chart = details.locator(".chart.parallel")
    chart.scroll_into_view_if_needed()
    expect(details.locator(".dt-info")).to_contain_text("of 32 members")
    box = chart.bounding_box()
    axes = int(re.search(r"members over (.*)", chart.get_attribute("aria-label")).group(1).count(",")) + 1
    x = box["x"] + 60 + 2 / (axes - 1) * (box["width"] - 150)  # the metric's axis stands after the two labels
    report.mouse.move(x, box["y"] + 120)
    report.mouse.down()
    report.mouse.move(x, box["y"] + 160, steps=4)
    report.mouse.move(x, box["y"] + 220, steps=4)
    report.mouse.up()
    expect(details.locator(".dt-info")).to_contain_text("(of 32)")
    picked = int(re.search(r"of (\d+) members", details.locator(".dt-info").inner_text()).group(1))
    assert 0 < picked < 32
    headings = details.locator("table.members thead th").all_inner_texts()
    column = next(i for i, text in enumerate(headings) if text.startswith("ELBO"))
    shown = []
    while True:
        shown += [
            float(text) for text in details.locator(f"table.members tbody td:nth-child({column + 1})").all_inner_texts()
        ]
        if len(shown) == picked:
            break
        details.get_by_label("Next").click()
    every = results[results["study"] == "temperatures"]["metrics.elbo"]
    between = every[(every >= min(shown) - 1e-3) & (every <= max(shown) + 1e-3)]
    assert sorted(shown) == pytest.approx(sorted(between), abs=1e-3)


def test_two_members_are_compared_field_by_field(report, results, history):
    details = explored(report, "estimators")
    boxes = details.get_by_role("checkbox")
    rows = details.locator("table.members tbody tr")
    status = next(
        i
        for i, text in enumerate(details.locator("table.members thead th").all_inner_texts())
        if text.startswith("status")
    )
    assert set(rows.locator(f"td:nth-child({status + 1})").all_inner_texts()) == {"finished"}
    for chosen in (0, 7, 9):  # the third takes the place of the first
        boxes.nth(chosen).check()
    assert [boxes.nth(i).is_checked() for i in (0, 7, 9)] == [False, True, True]
    lines = [row.split("\t") for row in details.locator("table.compared tbody").inner_text().splitlines()]
    titles = details.locator("table.compared tbody th").evaluate_all("all => all.map(each => each.title)")
    shown = {title: line[1:] for title, line in zip(titles, lines, strict=True)}
    pair = results.set_index("key").loc[shown["key"]]
    config = [name for name in results if name.startswith("config.") and name != "config.seed"]
    differing = {name.removeprefix("config.") for name in config if len(set(map(str, pair[name]))) == 2}
    assert differing
    assert {title for title in shown if title in {name.removeprefix("config.") for name in config}} == differing
    for name in differing:
        assert [str(value) for value in shown[name]] == [
            "none" if pd.isna(value) else f"{value:g}" if isinstance(value, float) else str(value)
            for value in pair[f"config.{name}"]
        ]
    assert [float(text) for text in shown["bits_per_dim"]] == pytest.approx(
        list(pair["metrics.bits_per_dim"]), rel=1e-5
    )
    chart = details.locator(".pair .chart")
    details.locator(".pair select").select_option(label="bits/dim")
    last = next(text for text in hovered(report, chart) if text.startswith("epoch 3\n"))
    ends = [history[history["key"] == key]["metrics.bits_per_dim"].iloc[-1] for key in shown["key"]]
    assert [numbers(line)[-1] for line in last.splitlines()[1:]] == pytest.approx(ends, rel=1e-4)


def test_without_scripts_everything_static_is_there(browser, quickstart):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((quickstart / "quickstart" / "report" / "index.html").as_uri())
    images = page.locator("figure > img")
    assert images.count() >= 9
    assert images.first.is_visible()
    assert page.get_by_role("region", name="Table: temperatures", exact=True).locator("tbody tr").count() == 16
    assert page.get_by_text("Explore the members").first.is_hidden()
    assert page.get_by_role("searchbox").count() == 0
    context.close()


def test_print_has_the_figures_and_none_of_the_controls(report):
    figure = section(report, "temperatures").locator("figure:not(.table)").first
    figure.scroll_into_view_if_needed()
    expect(figure.locator("div.chart")).to_be_visible()
    assert figure.locator("img").is_hidden()
    report.emulate_media(media="print")
    assert figure.locator("img").is_visible()
    assert figure.locator("div.chart").is_hidden()
    assert report.get_by_role("searchbox").count() == 0
    assert report.get_by_text("Explore the members").first.is_hidden()


def test_the_first_paint_waits_for_no_library(report):
    paint = report.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    assert paint < 1000


def test_names_are_text_wherever_scripts_show_them(page, tmp_path):
    evil = "<img src=x onerror=alert(1)></script><b>&"
    figures = (Curves("<i>who"), Heatmap("<i>who", "optim.lr"), Lines("optim.lr", "<i>who"))
    grid = (Variants("<i>who", {evil: {}, "b": {"batch_size": 64}}), Axis("optim.lr", (0.1, 0.2)))
    study = Study(name="grid", title="", source="", base=BASE, grid=grid, seeds=(0, 1), figures=figures)
    plan = Plan(Sweep("evil", "", (study,)))
    members = plan.members["grid"]
    rows = {member.key: ended(member) for member in members}
    for path, content in written(plan, members, rows).items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(content)
    alarms = []
    page.on("dialog", lambda dialog: alarms.append(dialog.message) or dialog.dismiss())
    page.on("console", lambda message: alarms.append(message.text))
    page.goto((tmp_path / "index.html").as_uri())
    page.wait_for_selector("html[data-ready]")
    details = explored(page, "grid")
    details.get_by_role("checkbox").nth(0).check()
    details.get_by_role("checkbox").nth(7).check()
    for chart in (
        *page.locator("figure:not(.table)").all(),
        details.locator(".parallel"),
        details.locator(".pair .chart"),
    ):
        chart.scroll_into_view_if_needed()
        page.wait_for_timeout(200)
        assert hovered(
            page, chart.locator("div.chart").first if chart.evaluate("each => each.tagName") == "FIGURE" else chart, 9
        )
    assert evil in details.inner_text()
    assert page.locator("b, i, img:not([alt])").count() == 0
    assert alarms == []
