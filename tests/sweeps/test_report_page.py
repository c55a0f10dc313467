"""What the page hands to its scripts: the members, the charts, and the policy that lets only these scripts run."""

import base64
import dataclasses
import gzip
import hashlib
import json
import re
from pathlib import Path

import pytest
from scripted import GRID, SMALL, row

from search_spaces.figures import Curves, Heatmap, Lines
from search_spaces.space import Sweep, Variants
from sweeps.analysis import cells as tables
from sweeps.analysis.frames import history_table, results_table
from sweeps.planning.plan import Plan
from sweeps.report import html
from sweeps.report import members as of_members
from sweeps.report.aligned import Piece, aligned
from sweeps.report.html import report
from sweeps.report.members import explorer

LIBRARIES = Path(of_members.__file__).parent / "libraries"
FIGURES = (Heatmap("optim.lr", "likelihood.variance"), Curves("optim.lr"), Lines("likelihood.variance", "optim.lr"))
DRAWN = dataclasses.replace(GRID, figures=FIGURES)


def page_of(study) -> str:
    plan = Plan(Sweep("small", "Small", (study,)))
    return report(plan, plan.members["grid"], {m.key: row(m) for m in plan.members["grid"]})["index.html"].decode()


def unpacked(text: str) -> dict:
    return json.loads(gzip.decompress(base64.b64decode(text)))


def blocks(page: str) -> list[dict]:
    """The data in the page, but not the libraries."""
    return [unpacked(text) for text in re.findall(r'<script type="application/gzip"(?: class="chart")?>(.*?)<', page)]


def explored(rows_of=row):
    members = Plan(SMALL).members["grid"]
    rows = {m.key: rows_of(m) for m in members}
    shown = explorer(GRID, tables.cells(GRID, members, rows))
    assert shown
    return shown, results_table(members, rows, {}).set_index("key"), history_table(members, rows)


def test_the_policy_allows_only_the_pages_own_style_and_scripts():
    page = page_of(DRAWN)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1].replace("&#39;", "'")
    (style,) = re.findall(r"<style>(.*?)</style>", page, flags=re.DOTALL)
    (script,) = re.findall(r"<script>(.*?)</script>", page, flags=re.DOTALL)
    libraries = gzip.decompress(base64.b64decode(re.search(r'id="libraries">(.*?)<', page)[1]))
    hashes = [
        f"'sha256-{base64.b64encode(hashlib.sha256(content).digest()).decode()}'"
        for content in (style.encode(), script.encode(), libraries)
    ]
    assert policy == (f"default-src 'none'; img-src data:; style-src {hashes[0]}; script-src {hashes[1]} {hashes[2]}")
    assert not re.search(r"<[^>]* (?:style|on[a-z]+)=", page)


def test_the_libraries_are_those_of_the_lock_file_and_evaluate_no_text():
    package = json.loads((LIBRARIES / "package.json").read_text())
    lock = json.loads((LIBRARIES / "package-lock.json").read_text())["packages"]
    bundle, licences = ((LIBRARIES / name).read_text() for name in ("bundle.js", "LICENSES.txt"))
    assert not re.search(r"new Function\b|(?<![\w.])eval\(", bundle)
    for name, version in package["dependencies"].items():
        assert lock[f"node_modules/{name}"]["version"] == version
        assert f'"{version}"' in bundle, name
        assert f"\n{name} {version}\n" in licences


def test_the_members_have_the_values_of_the_results():
    shown, results, history = explored()
    assert sorted(shown.keys) == sorted(results.index)
    assert shown.total == len(results) == 8
    ours = results.loc[shown.keys]
    assert shown.seeds == list(ours["seed"])
    assert [shown.status.values[at] for at in shown.status.at] == list(ours["status"])
    for metric in shown.metrics:
        assert metric.values == pytest.approx(list(ours[f"metrics.{metric.name}"]), rel=1e-7)
    assert {column.path for column in shown.labels} == {"optim.lr", "likelihood.variance"}
    for column in (*shown.labels, *shown.differing):
        assert [column.values[at] for at in column.at] == list(ours[f"config.{column.path}"])
    assert {path for _, path, _ in shown.same} | {column.path for column in shown.differing} == {
        name.removeprefix("config.") for name in results if name.startswith("config.")
    } - {"seed"}
    for curves in shown.curves:
        for place, values in zip(curves.members, curves.values, strict=True):
            exact = history[history["key"] == shown.keys[place]].set_index("epoch")[f"metrics.{curves.name}"]
            assert values == pytest.approx(list(exact[curves.epochs]), rel=1e-4)


def test_members_that_failed_are_listed_with_their_reason_and_without_numbers():
    def rows_of(member):
        return row(member, status="failed", reason="diverged", metrics={"elbo": float("nan")}, history={})

    shown, *_ = explored(lambda m: rows_of(m) if m.config.seed else row(m))
    failed = [i for i, at in enumerate(shown.status.at) if shown.status.values[at] == "failed: diverged"]
    assert len(failed) == 4
    assert all(metric.values[i] is None for metric in shown.metrics for i in failed)
    json.dumps(dataclasses.asdict(shown), allow_nan=False)


def test_large_studies_are_sampled_and_the_page_says_so(monkeypatch):
    monkeypatch.setattr(of_members, "MOST_MEMBERS", 5)
    monkeypatch.setattr(of_members, "MOST_POINTS", 6)
    monkeypatch.setattr(of_members, "MOST_EPOCHS", 2)

    def longer(member):
        return row(member, epochs=4, history={"bits_per_dim": [4.0, 3.0, 2.0, 1.0]})

    shown, results, _ = explored(longer)
    assert (len(shown.keys), shown.total) == (5, 8)
    assert results.loc[shown.keys[0], "metrics.bits_per_dim"] == results["metrics.bits_per_dim"].min()
    (curves,) = shown.curves
    assert curves.epochs == [1, 4]
    assert (len(curves.members), curves.values[0]) == (3, [4.0, 1.0])
    notes = " ".join(shown.notes)
    assert all(each in notes for each in ("5 of 8 members", "2 of 4 epochs", "curves of 3 members"))


def test_long_tables_are_shortened_on_the_page_and_whole_in_their_file(monkeypatch):
    monkeypatch.setattr(html, "_ROWS", 3)
    study = dataclasses.replace(GRID, compare=())
    plan = Plan(Sweep("small", "Small", (study,)))
    members = plan.members["grid"]
    files = html.report(plan, members, {m.key: row(m) for m in members}, drawn=False)
    page = files["index.html"].decode()
    assert "The first 3 of 4 rows; the CSV file has all." in page
    assert page.split('aria-label="Table: grid"')[1].split("</table>")[0].count('<th scope="row"') == 3
    assert len(files["tables/grid.csv"].decode().splitlines()) == 5


@pytest.mark.parametrize(("status", "offered"), [("finished", 1), ("failed", 0)])
def test_a_link_to_the_members_is_offered_where_some_have_finished(status, offered):
    plan = Plan(SMALL)
    members = plan.members["grid"]
    rows = {m.key: row(m, status=status, reason="diverged" if status == "failed" else None) for m in members}
    links = {"grid": "http://127.0.0.1:5000/grid", "searched": "http://127.0.0.1:5000/searched"}
    page = report(plan, members, rows, drawn=False, links=links)["index.html"].decode()
    assert page.count('<a href="http://127.0.0.1:5000/grid">') == offered
    assert "http://127.0.0.1:5000/searched" not in page


def test_each_figure_has_its_chart_and_each_study_its_members():
    kinds = [each.get("kind", "members") for each in blocks(page_of(DRAWN))]
    assert kinds == ["heatmap", "lines", "lines", "members"]


def test_names_cannot_leave_their_script_element():
    name = "</script><img src=x onerror=alert(1)>"
    study = dataclasses.replace(GRID, grid=(Variants("who", {name: {}, "b": {"epochs": 3}}),), compare=())
    page = page_of(study)
    assert name not in page
    (members,) = blocks(page)
    assert members["labels"][0]["values"] == [name, "b"]


def test_columns_are_padded_so_that_their_points_lie_below_each_other():
    texts = ["0.5432 ± 0.0012", "12.5 ± 0.3 ★", "–", "7", "-3.25 ± 10.00"]
    pieces = aligned(texts)
    assert ["".join(piece.text for piece in each if not piece.hidden) for each in pieces] == texts
    whole = ["".join(piece.text for piece in each) for each in pieces]
    ends = {len(text) - text.index(".") for i, text in enumerate(whole) if i != 2}
    assert len(ends) == 1  # to the right of the point all are equally wide
    assert len({len(text) - text.index("±") for i, text in enumerate(whole) if i not in (2, 3)}) == 1
    assert pieces[2] == [Piece("–")]


def test_headings_say_the_path_of_their_field():
    page = page_of(GRID)
    assert '<th scope="col" title="optim.lr">learning rate</th>' in page
    assert "<li>learning rate: <code>optim.lr</code></li>" in page
