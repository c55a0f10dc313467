"""The report in a browser: complete, with sortable tables, on dark and narrow screens, accessible."""

import re

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image

expect = pytest.importorskip("playwright.sync_api", reason="playwright is not installed").expect

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]}


@pytest.fixture
def report(page, quickstart):
    """The page, opened offline; `page.complaints` collects its errors."""
    page.complaints = []
    page.on("console", lambda message: page.complaints.append(message.text))
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.on(
        "request", lambda request: request.url.startswith(("file:", "data:")) or page.complaints.append(request.url)
    )
    page.context.set_offline(True)
    page.goto((quickstart / "quickstart" / "report" / "index.html").as_uri())
    page.wait_for_selector("html[data-ready]")
    return page


def open_all(page) -> None:
    """Opens all that is folded, and waits until the members are there."""
    page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    expect(page.locator(".pair")).to_have_count(page.locator("details.explorer").count())
    page.evaluate("""async () => {
        for (let y = 0; y < document.body.scrollHeight; y += 500) {
            scrollTo(0, y);
            await new Promise(requestAnimationFrame);
        }
        scrollTo(0, 0);
    }""")
    expect(page.locator(".charted")).to_have_count(page.locator("script.chart").count())


def column(report, heading: str) -> list[float]:
    """The numbers of a column in the table of estimators, in the order shown."""
    table = report.get_by_role("region", name="Table: estimators", exact=True)
    index = table.locator("thead th").all_inner_texts()
    place = next(i for i, text in enumerate(index) if text.startswith(heading))
    cells = table.locator(f"tbody tr > :nth-child({place + 1})").all_inner_texts()
    return [float(re.match(r"-?[\d.]+", cell).group()) for cell in cells]


def clean(page) -> None:
    """Asserts that axe finds no accessibility violation."""
    found = Axe().run(page, options=RULES).response
    assert found["passes"]
    assert [(each["id"], [node["html"] for node in each["nodes"]][:3]) for each in found["violations"]] == []


def test_it_opens_without_complaints_and_all_images_load(report):
    images = report.locator("img")
    assert images.count() >= 8  # the heatmap, and Optuna's plots
    open_all(report)
    report.wait_for_function("[...document.images].every(image => image.complete)")
    assert report.evaluate("[...document.images].every(image => image.naturalWidth > 200)")
    assert all(image.get_attribute("alt") for image in images.all())
    assert report.complaints == []


def test_tables_sort_by_the_heading_that_is_clicked_and_back(report):
    region = report.get_by_role("region", name="Table: estimators", exact=True)
    heading = region.get_by_role("columnheader").filter(has_text="bits/dim").first
    before = column(report, "bits/dim")
    heading.click()
    expect(heading).to_have_attribute("aria-sort", "ascending")
    assert column(report, "bits/dim") == sorted(before)
    heading.get_by_role("button").press("Enter")
    expect(heading).to_have_attribute("aria-sort", "descending")
    assert column(report, "bits/dim") == sorted(before, reverse=True)


def test_what_was_changed_for_the_run_is_told_at_the_top(report):
    header = report.locator("header").inner_text()
    assert "NOT COMPARABLE WITH THE PAPER" in header
    assert "epochs = 3" in header


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_both_colour_schemes_are_readable_by_all(report, scheme):
    report.emulate_media(color_scheme=scheme)
    background = report.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", background)[:3])) < 200) == (scheme == "dark")
    open_all(report)
    clean(report)


CUT_OFF = """() => [...document.querySelectorAll("body *")]
  .filter(each => each.clientWidth && getComputedStyle(each).display !== "inline")
  .filter(each => !each.closest(".wide"))
  .filter(each => each.scrollWidth > each.clientWidth + 1 || each.getBoundingClientRect().right > innerWidth + 1)
  .map(each => `${each.tagName} ${each.textContent.slice(0, 40)}`)"""
"""Finds elements that are cut off outside the marked scrollers."""
SCROLLING = """() => [...document.querySelectorAll(".wide")]
  .filter(each => each.scrollWidth > each.clientWidth + 1).map(each => each.ariaLabel)"""
A4_LANDSCAPE = 1032
"""The width of a printed page between its margins, in pixels."""


@pytest.mark.parametrize(
    ("media", "width", "scrolls"), [("screen", 1300, False), ("screen", 390, True), ("print", A4_LANDSCAPE, False)]
)
def test_nothing_is_cut_off(report, media, width, scrolls):
    report.set_viewport_size({"width": width, "height": 900})
    open_all(report)
    report.emulate_media(media=media)
    assert report.locator("table").count() >= 5
    assert report.evaluate(CUT_OFF) == []
    assert bool(report.evaluate(SCROLLING)) == scrolls


def test_a_narrow_screen_scrolls_tables_and_not_the_page(report):
    report.set_viewport_size({"width": 360, "height": 700})
    assert report.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    wide = report.get_by_role("region", name="Table: temperatures", exact=True)
    assert wide.evaluate("region => region.scrollWidth > region.clientWidth")
    wide.evaluate("region => region.scrollLeft = 10000")
    first = wide.locator("tbody th").first
    assert first.bounding_box()["x"] == pytest.approx(wide.bounding_box()["x"], abs=1)  # the first column stays in view
    clean(report)


def test_captions_do_not_scroll_and_verdicts_stand_beside_their_claims(report):
    assert report.locator(".wide figcaption, .wide caption").count() == 0
    assert report.locator("figure.table figcaption").count() >= 4
    claim = report.get_by_role("region", name="Table: temperatures-claims").locator("tbody th").first
    assert claim.locator(".verdict").inner_text() == "undecided"


def test_expectations_are_named_as_such_and_links_lead_to_files(report, quickstart):
    assert "Expected: The best pair lies off the diagonal." in report.locator("main").inner_text()
    links = report.locator(".files a").evaluate_all("links => links.map(link => link.getAttribute('href'))")
    assert len(links) >= 20
    assert all((quickstart / "quickstart" / "report" / link).is_file() for link in links)


def test_the_foot_names_dates_hours_and_the_command(report):
    foot = report.locator("footer").inner_text()
    assert re.search(r"Last training ended \d{4}-\d\d-\d\d \d\d:\d\d UTC", foot)
    assert re.search(r"\d\.\d\d hours of training", foot)
    assert "python -m sweeps.run quickstart" in foot
    assert "epochs=3" in foot


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("drawn", ["figure:not(.table) > img", "div.chart"])
def test_plots_follow_the_colour_scheme(report, scheme, drawn, tmp_path):
    open_all(report)
    report.emulate_media(color_scheme=scheme)
    if drawn != "div.chart":  # the static figure, as without scripts
        report.evaluate("document.querySelectorAll('.charted').forEach(each => each.classList.remove('charted'))")
    report.locator(drawn).first.screenshot(path=tmp_path / "plot.png")
    pixels = np.asarray(Image.open(tmp_path / "plot.png").convert("L"))
    background, ink = (pixels.min(), pixels.max()) if scheme == "dark" else (pixels.max(), pixels.min())
    assert abs(np.median(pixels) - int(background)) <= 2
    assert abs(int(background) - int(ink)) > 180  # enough contrast


def test_print_begins_with_the_overview_and_unfolds_the_search(report, tmp_path):
    report.emulate_media(media="print")
    assert report.locator("nav").is_visible()
    assert report.pdf(path=tmp_path / "report.pdf", prefer_css_page_size=True).startswith(b"%PDF")
    assert report.locator("details:not(.explorer)").first.evaluate("each => each.open")
