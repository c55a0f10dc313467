"""Real runs of quickstart, with Ray. Most run in the process of the tests, where PyTorch and Ray are loaded already."""

import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter, defaultdict
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient

from search_spaces import get_sweep
from sweeps import run as sweeps_run
from sweeps.records.ledger import Ledger
from sweeps.records.storage import Storage

pytestmark = pytest.mark.timeout(600)


def start(storage: Path, *arguments: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "sweeps.run", "quickstart", "--storage", str(storage), *arguments]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True, cwd=storage.parent
    )


@pytest.fixture
def run(command):
    """Runs quickstart in this process; returns exit code and output."""

    def call(storage: Path, *arguments: str) -> tuple[int, str]:
        code, out, err = command(sweeps_run.run, "quickstart", "--storage", str(storage), *arguments)
        return code, out + err

    return call


def results(storage: Path) -> pd.DataFrame:
    return pd.read_parquet(storage / "quickstart" / "results.parquet")


def mlflow_runs(storage: Path) -> list:
    client = MlflowClient(f"sqlite:///{storage / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("quickstart")
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id], max_results=1000))


def kinds(storage) -> dict[str, int]:
    """The number of MLflow's runs of each kind."""
    return Counter(run.data.tags["kind"].split()[0] for run in mlflow_runs(storage))


@pytest.fixture(scope="module")
def done(finished_quickstart, tmp_path_factory) -> Path:
    """A copy of a storage in which the sweep has been run to its end."""
    storage = tmp_path_factory.mktemp("done") / "runs"
    shutil.copytree(finished_quickstart, storage)
    return storage


def test_the_first_run_says_where_the_report_is(finished_quickstart):
    output = finished_quickstart.with_name("printed.txt").read_text()
    assert f"Report: {finished_quickstart}/quickstart/report/index.html" in output
    assert "Traceback" not in output
    links = "Members of temperatures, the best first: http://127.0.0.1:5000/#/experiments/"
    assert [line.startswith(links) for line in output.splitlines()].count(True) == 1
    (experiment,) = {run.info.experiment_id for run in mlflow_runs(finished_quickstart)}
    assert f"{links}{experiment}/runs?" in output


@pytest.fixture
def storage(empty_database, tmp_path) -> Path:
    """A storage in which nothing was run, with a database of MLflow's."""
    empty_database(tmp_path / "runs" / "mlflow.db")
    return tmp_path / "runs"


def test_every_member_finishes_with_the_promised_files(done):
    table = results(done)
    assert set(table["status"]) == {"finished"}
    assert table.groupby("study").size().to_dict() == {"estimators": 20, "search": 12, "temperatures": 32}
    assert table["key"].is_unique
    columns = {"key", "study", "seed", "status", "reason", "epochs", "wall_s", "mlflow_run_id"}
    columns |= {"config.estimator.name", "config.optim.lr", "metrics.bits_per_dim", "metrics.kl", "metrics.mse"}
    assert columns | {"metrics.elbo"} <= set(table.columns)
    history = pd.read_parquet(done / "quickstart" / "history.parquet")
    assert len(history) == table["config.epochs"].sum()
    last = history.groupby("key")["metrics.elbo"].last()
    pd.testing.assert_series_equal(last, table.set_index("key")["metrics.elbo"].loc[last.index])


class Figures(HTMLParser):
    """The figures that a page shows, by the anchor of their section: images within the page, as SVG."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: dict[str, list[ElementTree.Element]] = defaultdict(list)
        self._section = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "section":
            self._section = given["aria-labelledby"] or ""
        if tag == "img":
            kind, _, content = (given["src"] or "").partition(",")
            assert kind == "data:image/svg+xml;base64"
            self.shown[self._section].append(ElementTree.fromstring(base64.b64decode(content)))


def test_the_page_shows_every_figure_of_every_study(done):
    page = Figures()
    page.feed((done / "quickstart" / "report" / "index.html").read_text())
    by_optuna = {"history", "importances", "parallel", "contour", "slice", "rank", "timeline"}
    expected = {
        study.name: len(study.figures) + (len(by_optuna) if study.search else 0)
        for study in get_sweep("quickstart").studies
    }
    table = results(done)
    for name, own in table[table["status"] == "finished"].groupby("study"):
        fields = own.filter(regex="^config\\.(?!seed)").astype(str).drop_duplicates()
        expected[name] += len(fields) >= 10 and (fields.nunique() > 1).sum() >= 2  # the importance of each field
    expected["estimators"] += 1  # tuning curves: its rows have several configurations each
    assert {section: len(found) for section, found in page.shown.items()} == expected
    for figure in (figure for found in page.shown.values() for figure in found):
        assert figure.tag == "{http://www.w3.org/2000/svg}svg"
        _, _, width, height = map(float, figure.attrib["viewBox"].split())
        assert min(width, height) > 100
        drawn = Counter(element.tag.rpartition("}")[2] for element in figure.iter())
        assert drawn["path"] + drawn["use"] + drawn["image"] > 5
    files = {path.stem for path in (done / "quickstart" / "report" / "figures").iterdir()}
    assert len(files) == sum(expected.values())
    assert {f"search-search-{kind}" for kind in by_optuna} <= files


def test_mlflow_has_the_runs_nested_with_parameters_curves_and_tags(done):
    runs = {r.info.run_id: r for r in mlflow_runs(done)}
    members = [r for r in runs.values() if r.data.tags["kind"] == "member"]
    assert kinds(done) == {"sweep": 1, "study": 3, "configuration": 16, "member": 64}
    assert {r.info.status for r in runs.values()} == {"FINISHED"}
    table = results(done).set_index("mlflow_run_id")
    for member in members:
        study = runs[member.data.tags["mlflow.parentRunId"]]
        if study.data.tags["kind"] == "configuration":
            study = runs[study.data.tags["mlflow.parentRunId"]]
        sweep = runs[study.data.tags["mlflow.parentRunId"]]
        row = table.loc[member.info.run_id]
        assert sweep.data.tags["kind"] == "sweep"
        assert member.data.tags["sweep"] == "quickstart"
        assert member.data.tags["study"] == study.data.tags["study"] == row["study"]
        assert (member.data.tags["key"], member.data.tags["seed"]) == (row["key"], str(row["seed"]))
        assert member.data.params["optim.lr"] == str(row["config.optim.lr"])
        assert member.data.metrics["elbo"] == pytest.approx(row["metrics.elbo"])
    client = MlflowClient(f"sqlite:///{done / 'mlflow.db'}")
    one = members[0]
    steps = [m.step for m in client.get_metric_history(one.info.run_id, "elbo")]
    assert steps == list(range(1, int(one.data.params["epochs"]) + 1))


def test_mlflow_has_the_mean_of_each_pair_of_temperatures(done):
    table = results(done)
    own = table[table["study"] == "temperatures"]
    by = [own[f"config.estimator.temperature_{way}"] for way in ("forward", "backward")]
    expected = own.groupby(by)["metrics.elbo"].agg(["mean", "sem", "count"])
    found = {
        (
            float(run.data.params["estimator.temperature_forward"]),
            float(run.data.params["estimator.temperature_backward"]),
        ): run
        for run in mlflow_runs(done)
        if run.data.tags["kind"] == "configuration"
    }
    assert found.keys() == set(expected.index)
    for pair, run in found.items():
        told = [run.data.metrics[name] for name in ("elbo", "elbo.stderr", "n")]
        assert told == pytest.approx(list(expected.loc[pair]))


def test_silent_gradients_are_no_worse_than_what_they_replace(done):
    table = results(done)
    own = table[table["study"] == "estimators"]
    best = own.groupby(["config.latent.family", "config.estimator.name"])["metrics.bits_per_dim"].min()
    assert best["gaussian", "silent"] <= best["gaussian", "reparameterization"]
    assert best["bernoulli", "silent"] <= best["bernoulli", "gumbel_softmax"]
    assert best["bernoulli", "silent"] <= best["bernoulli", "reinforce"]


def test_the_report_says_which_temperatures_are_best_and_where_they_lie(done):
    table = results(done)
    own = table[table["study"] == "temperatures"]
    forward, backward = "config.estimator.temperature_forward", "config.estimator.temperature_backward"
    best = own.groupby([forward, backward])["metrics.elbo"].mean().idxmax()
    place = "on" if best[0] == best[1] else "off"
    page = (done / "quickstart" / "report" / "index.html").read_text()
    assert f"temperature (forward) {best[0]:.4g}, temperature (backward) {best[1]:.4g}" in page
    assert f"It lies {place} the diagonal" in page


def test_a_second_run_trains_nothing_and_starts_no_ray(done, run):
    before = results(done)
    code, output = run(done)
    assert code == 0, output
    assert "0 trained now" in output
    assert "Starting Ray" not in output
    pd.testing.assert_frame_equal(results(done), before)
    assert kinds(done) == {"sweep": 1, "study": 3, "configuration": 16, "member": 64}


def test_output_in_ascii_that_nobody_reads_changes_no_result(done):
    before = results(done)
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    command = [sys.executable, "-m", "sweeps.run", "quickstart", "--storage", str(done)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=done.parent, env=environment
    )
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None
    _, errors = process.communicate(timeout=300)
    assert (process.returncode, errors) == (0, "Nobody reads the output any more; the run goes on without it.\n")
    pd.testing.assert_frame_equal(results(done), before)


@pytest.mark.slow
def test_with_one_row_removed_that_member_alone_is_trained(done, run):
    before = results(done).set_index("key")
    ledger = done / "quickstart" / "ledger"
    file = next(path for path in sorted(ledger.glob("*.parquet")) if pq.read_metadata(path).num_rows > 1)
    gone, *kept = pq.read_table(file)["key"].to_pylist()
    rows = Ledger(Storage(str(done), "quickstart")).read()
    file.unlink()
    Ledger(Storage(str(done), "quickstart")).append([rows[key] for key in kept])
    code, output = run(done)
    assert code == 0, output
    assert "1 trained now" in output
    after = results(done).set_index("key")
    assert after.loc[gone, "metrics.elbo"] == pytest.approx(before.loc[gone, "metrics.elbo"], rel=1e-4)
    others = before.index.drop(gone)
    pd.testing.assert_frame_equal(after.loc[others], before.loc[others])
    assert kinds(done) == {"sweep": 1, "study": 3, "configuration": 16, "member": 64}


@pytest.mark.slow
def test_after_ctrl_c_the_same_command_goes_on(done, storage, run):
    only = ("--only", "estimators")
    process = start(storage, *only)
    deadline = time.monotonic() + 200
    while not list(storage.glob("quickstart/ledger/*.parquet")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 130, output
    assert "Traceback" not in output
    first = results(storage)
    finished = first[first["status"] == "finished"]
    assert 0 < len(finished) < 20
    assert "RUNNING" not in {r.info.status for r in mlflow_runs(storage)}

    code, output = run(storage, *only)
    assert code == 0, output
    assert f"{20 - len(finished)} trained now" in output
    resumed = results(storage).set_index("key")["metrics.elbo"]
    assert len(resumed) == 20
    expected = results(done).set_index("key")["metrics.elbo"]
    np.testing.assert_allclose(resumed, expected.loc[resumed.index], rtol=1e-4)
    runs = mlflow_runs(storage)
    assert {r.info.status for r in runs} == {"FINISHED"}
    assert kinds(storage) == {"sweep": 1, "study": 1, "member": 20}


@pytest.mark.slow
def test_failures_exit_with_3_say_why_and_can_be_retried(storage, run):
    only = ("--only", "estimators", "--set", "optim.lr=1e30")
    code, output = run(storage, *only)
    assert code == 3, output
    assert "diverged" in output
    assert f"--storage {storage} --retry-failed" in output
    table = results(storage)
    assert set(table["reason"]) == {"diverged"}
    assert set(table["epochs"]) == {1}
    members = [r for r in mlflow_runs(storage) if r.data.tags["kind"] == "member"]
    assert {r.info.status for r in members} == {"FAILED"}

    code, output = run(storage, *only)
    assert code == 3
    assert "0 trained now" in output
    code, output = run(storage, *only, "--retry-failed")
    assert code == 3
    assert f"{len(table)} trained now" in output


@pytest.mark.slow
def test_a_worker_group_gives_the_same_numbers(done, storage, run):
    code, output = run(storage, "--only", "temperatures", "--seeds", "1", "--workers", "2")
    assert code == 0, output
    alone = results(done).set_index("key")["metrics.elbo"]
    spread = results(storage).set_index("key")["metrics.elbo"]
    assert len(spread) == 16
    np.testing.assert_allclose(spread, alone.loc[spread.index], rtol=1e-4)


@pytest.mark.slow
def test_workers_that_share_the_batches_of_one_member_give_the_same_numbers(empty_database, tmp_path, run):
    one = ["--only", "temperatures", "--seeds", "1", "--set", "epochs=4"]
    one += [f"--set=estimator.temperature_{way}=0.5" for way in ("forward", "backward")]
    for workers in ("1", "2"):
        empty_database(tmp_path / workers / "mlflow.db")
        code, output = run(tmp_path / workers, *one, "--workers", workers)
        assert code == 0, output
        assert "1 of 1 members done, 0 failed, 1 trained now" in output
    alone, shared = (pd.read_parquet(tmp_path / workers / "quickstart" / "history.parquet") for workers in ("1", "2"))
    pd.testing.assert_frame_equal(shared, alone, rtol=1e-4)
    (checkpoint,) = (tmp_path / "2").glob("quickstart/checkpoints/*/*")
    assert checkpoint.name == "members.safetensors"  # a single process can go on from it


def test_the_user_interface_serves_the_runs(done):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "sweeps.ui", "--port", str(port)], cwd=done.parent, start_new_session=True
    )
    try:
        body = json.dumps({"max_results": 10}).encode()
        url = f"http://127.0.0.1:{port}/api/2.0/mlflow/experiments/search"
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        deadline = time.monotonic() + 60
        while True:
            try:
                with urllib.request.urlopen(request, timeout=5) as answer:
                    names = [experiment["name"] for experiment in json.load(answer)["experiments"]]
                break
            except OSError:
                assert server.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.5)
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)
    assert "quickstart" in names
