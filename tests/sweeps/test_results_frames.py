"""Results as frames, and the answers to the questions of docs/analysis.md."""

import re
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
from scripted import row

import sweeps
from search_spaces import get_sweep
from sweeps.errors import UserError
from sweeps.planning import saved
from sweeps.planning.plan import Overrides, Plan
from sweeps.records import parquet
from sweeps.records.ledger import Ledger
from sweeps.records.storage import Storage
from sweeps.records.tables import RESULTS, known_run_ids
from sweeps.report.write import write_tables

PAGE = Path(__file__).parents[2] / "docs" / "analysis.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
OFFSETS = {"silent": 0.0, "reparameterization": 0.1, "gumbel_softmax": 0.2, "reinforce": 3.0, "decoupled_st_gs": 0.0}


def made_up(member):
    """A made-up row: the best pair of temperatures is (0.3, 1), by half a nat for each seed."""
    config = member.config
    bits = 8.0 + OFFSETS[config.estimator.name] + abs(config.optim.lr - 3e-3)
    metrics = {"bits_per_dim": bits, "elbo": -bits}
    if member.study == "temperatures":
        pair = (config.estimator.temperature_forward, config.estimator.temperature_backward)
        gain = 1.5 if pair == (0.3, 1.0) else 1.0 if pair == (0.5, 0.5) else 0.0
        metrics["elbo"] = -20 + gain + 0.3 * config.seed + 0.01 * config.seed * (pair == (0.3, 1.0))
    history = {"bits_per_dim": [bits + 1, bits], "elbo": [metrics["elbo"] - 1, metrics["elbo"]]}
    return row(member, metrics=metrics, history=history)


@pytest.fixture
def runs(tmp_path, monkeypatch) -> Path:
    """A storage with quickstart, three seeds, without its search; one member has failed."""
    place = Storage(str(tmp_path / "runs"), "quickstart")
    place.prepare()
    overrides = Overrides(only="[et]*", seeds=3)
    plan = Plan(get_sweep("quickstart"), overrides)
    saved.save_plan(place, overrides)
    members = [member for study in plan.studies for member in plan.members[study.name]]
    rows = [made_up(member) for member in members[:-1]]
    rows.append(row(members[-1], status="failed", reason="diverged", metrics={}, history={}))
    Ledger(place).append(rows)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs"


def test_frames_have_a_row_a_training_and_a_row_an_epoch(runs):
    found = sweeps.results("quickstart", storage=str(runs))
    assert len(found.results) == 3 * (20 + 16)
    assert len(found.history) == 2 * (3 * (20 + 16) - 1)
    assert set(found.results["status"]) == {"finished", "failed"}


def test_a_sweep_that_was_not_run_says_how_to_run_it(tmp_path):
    with pytest.raises(UserError, match=r"python -m sweeps\.run quickstart"):
        sweeps.results("quickstart", storage=str(tmp_path))


def write_results(place, table):
    place.write(RESULTS, parquet.encoded(pa.table(table)))


@pytest.mark.parametrize(
    "table",
    [
        {"key": ["k"], "mlflow_run_id": ["r"]},
        {"study": ["s"], "key": ["k"]},
        {"study": ["s"], "key": ["k"], "mlflow_run_id": [1]},
        {"x": [1]},
    ],
    ids=str,
)
def test_results_without_the_columns_of_runs_name_no_runs(runs, table):
    place = Storage(str(runs), "quickstart")
    write_results(place, {"study": ["s"], "key": ["k"], "mlflow_run_id": ["r"]})
    assert known_run_ids(place) == {("s", "k"): "r"}
    write_results(place, table)
    assert known_run_ids(place) == {}


def test_the_five_questions_of_the_page_are_answered(runs, capsys):
    answers, names = [], {}
    for code in BLOCKS:
        exec(compile(code, PAGE.name, "exec"), names)
        answers.append(capsys.readouterr().out)
    load, estimators, pair, test, epochs, failures = answers
    assert load == ""
    assert [line.split()[1] for line in estimators.splitlines()[1:]][-1] == "reinforce"
    assert estimators.splitlines()[1].split()[2] == "0.003"
    # The pairs differ by 0.5 plus the mean over seeds of 0, 0.01 and 0.02.
    assert pair == "0.3 forward and 1.0 back: 0.51 nats above 0.5 both ways\n"
    said = re.fullmatch(r"p = (\d\.\d{3}) with (\d) seeds\n", test)
    assert said is not None
    assert float(said[1]) < 0.01
    assert said[2] == "3"
    # The made-up histories end one bit lower than they start: the second epoch reaches 8, 8.1 and 8.2.
    assert re.findall(r"(\w+) +(\d)$", epochs, flags=re.MULTILINE) == [
        ("gumbel_softmax", "2"), ("silent", "2"), ("reparameterization", "2"), ("silent", "2")
    ]  # fmt: skip
    assert re.search(r"temperatures +failed +diverged +1", failures)


def test_every_sweep_makes_one_table(tmp_path):
    """A field with values of several types, such as a number of channels and a list of them, gets one type."""
    place = Storage(str(tmp_path / "runs"), "paper_grid")
    place.prepare()
    plan = Plan(get_sweep("paper_grid"), Overrides(seeds=1))
    members = [member for study in plan.studies for member in plan.expected(study)]
    write_tables(place, members, {}, {})
    table = pd.read_parquet(place.local_path / RESULTS)
    assert len(table) == len(members)
    channels = {tuple(value) for value in table["config.encoder.channels"] if value is not None}
    assert channels == {(32,), (32, 64, 128, 256), (64,)}
