"""A sweep as shown in MLflow's user interface."""

import json
from urllib.parse import quote

import pytest
from mlflow import MlflowClient

expect = pytest.importorskip("playwright.sync_api", reason="playwright is not installed").expect
expect.set_options(timeout=60_000)
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def client(mlflow_ui) -> MlflowClient:
    return MlflowClient(mlflow_ui)


@pytest.fixture(scope="module")
def experiment(client, mlflow_ui) -> str:
    """The address of the experiment's page."""
    return f"{mlflow_ui}/#/experiments/{client.get_experiment_by_name('quickstart').experiment_id}"


def found(client, condition: str) -> list:
    return list(client.search_runs([client.get_experiment_by_name("quickstart").experiment_id], condition))


def best(client):
    """The run with the best temperatures."""
    return client.get_run(client.get_model_version_by_alias("quickstart.temperatures", "best").run_id)


def test_members_are_nested_below_their_study_and_that_below_the_sweep(page, experiment, client):
    page.goto(f"{experiment}/runs")
    expect(page.get_by_role("link", name="quickstart", exact=True).last).to_be_visible()
    assert page.get_by_role("link", name="temperatures", exact=True).count() == 0
    member = best(client)
    configuration = client.get_run(member.data.tags["mlflow.parentRunId"]).info.run_name
    for above, below in [
        ("quickstart", "temperatures"),
        ("temperatures", configuration),
        (configuration, member.info.run_name),
    ]:
        row = page.get_by_role("row").filter(has=page.get_by_role("link", name=above, exact=True)).last
        row.get_by_role("button").first.click()
        expect(page.get_by_role("link", name=below, exact=True).first).to_be_visible()


def test_runs_are_filtered_by_their_parameters(page, experiment, client):
    condition = 'params.`estimator.name` = "silent" and params.`latent.family` = "bernoulli"'
    count = len(found(client, condition))
    assert count == 4
    page.goto(f"{experiment}/runs")
    expect(page.get_by_text("84 matching runs")).to_be_visible()
    search = page.get_by_placeholder("metrics.rmse")
    search.fill(condition)
    search.press("Enter")
    expect(page.get_by_text(f"{count + 1} matching runs")).to_be_visible()  # with the run of their study


def test_two_runs_are_compared(page, mlflow_ui, client):
    runs = found(client, 'tags.kind = "member" and tags.study = "temperatures" and params.seed = "0"')[:2]
    ids, experiments = [run.info.run_id for run in runs], [runs[0].info.experiment_id]
    page.goto(f"{mlflow_ui}/#/compare-runs?runs={quote(json.dumps(ids))}&experiments={quote(json.dumps(experiments))}")
    for run in runs:
        expect(page.get_by_text(run.info.run_name, exact=True).first).to_be_visible()
    differing = {name for name, value in runs[0].data.params.items() if runs[1].data.params[name] != value}
    assert differing
    for name in differing:
        expect(page.get_by_text(name, exact=True).first).to_be_visible()
        expect(page.get_by_text(runs[0].data.params[name], exact=True).first).to_be_visible()


def test_a_run_shows_its_curves(page, experiment, client):
    page.goto(f"{experiment}/runs/{best(client).info.run_id}/model-metrics")
    expect(page.get_by_text("bits_per_dim", exact=True).first).to_be_visible()
    expect(page.locator(".js-plotly-plot .scatterlayer path.js-line").first).to_be_attached()


def test_a_run_shows_its_figure(page, experiment, client):
    page.goto(f"{experiment}/runs/{best(client).info.run_id}/artifacts/figures/reconstructions.png")
    figure = page.get_by_role("img", name="reconstructions.png")
    expect(figure).to_be_visible()
    assert figure.evaluate("image => image.naturalWidth") > 500


def test_the_sweeps_run_has_the_report(client):
    (sweep,) = found(client, 'tags.kind = "sweep"')
    assert "report/index.html" in [file.path for file in client.list_artifacts(sweep.info.run_id, "report")]


def test_the_best_of_every_study_is_among_the_models(page, mlflow_ui):
    page.goto(f"{mlflow_ui}/#/models")
    for study in ("estimators", "search", "temperatures"):
        row = page.get_by_role("row").filter(has=page.get_by_role("link", name=f"quickstart.{study}"))
        expect(row.get_by_text("best").first).to_be_visible()


def test_a_version_says_what_it_is(page, mlflow_ui, client):
    version = client.get_model_version_by_alias("quickstart.temperatures", "best")
    page.goto(f"{mlflow_ui}/#/models/quickstart.temperatures/versions/{version.version}")
    expect(page.get_by_text(version.description).first).to_be_visible()
    expect(page.get_by_text(version.tags["key"]).first).to_be_visible()
