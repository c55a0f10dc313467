"""A storage of an earlier version can be continued: nothing is trained again, and no row is lost or changed.

tests/fixtures/old_storage contains the files that commit 551caed wrote for the two commands below, without reports,
artifacts and most checkpoints; large files are compressed.
"""

import lzma
import shutil
from pathlib import Path

import pandas as pd
import pytest
from mlflow import MlflowClient

import sweeps
from sweeps.planning import saved
from sweeps.records.checkpoints import trained_model
from sweeps.records.ledger import Ledger
from sweeps.records.storage import Storage
from sweeps.report.__main__ import report
from sweeps.run import run
from sweeps.status import status
from sweeps.tracking.uri import of_database
from trainables.data import load

FIXTURE = Path(__file__).parents[1] / "fixtures" / "old_storage"
QUICKSTART = ["quickstart", "--only", "search", "--set", "epochs=2"]
PAPER_GRID = ["paper_grid", "--scale", "smoke", "--only", "dvae/reinmax_4x8"]
pytestmark = pytest.mark.timeout(600)
CASES = {"quickstart": ([*QUICKSTART, "--seeds", "1"], 12), "paper_grid-smoke": (PAPER_GRID, 23)}
"""The command that was run and its number of members, by folder."""

every_case = pytest.mark.parametrize(
    ("folder", "arguments", "count"), [(folder, *case) for folder, case in CASES.items()], ids=CASES
)


@pytest.fixture
def old(tmp_path) -> Path:
    """A writable copy of the old storage."""
    place = tmp_path / "runs"
    shutil.copytree(FIXTURE, place)
    for packed in place.rglob("*.xz"):
        packed.with_suffix("").write_bytes(lzma.decompress(packed.read_bytes()))
        packed.unlink()
    return place


def ledger_files(place: Path, folder: str) -> dict[str, bytes]:
    """The content of a ledger's files, by name."""
    return {path.name: path.read_bytes() for path in (place / folder / "ledger").iterdir()}


def run_ids(place: Path, folder: str) -> dict[str, str]:
    """The ids of members' MLflow runs, by study and key."""
    client = MlflowClient(of_database(place / "mlflow.db"))
    experiment = client.get_experiment_by_name(folder)
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], "tags.kind = 'member'", max_results=1000)
    return {f"{each.data.tags['study']} {each.data.tags['key']}": each.info.run_id for each in runs}


@every_case
def test_the_plan_counts_all_members_as_done(folder, arguments, count, old, command):
    code, out, _ = command(run, *arguments, "--storage", str(old), "--plan")
    assert code == 0
    (total,) = (line.split() for line in out.splitlines() if line.startswith("total"))
    assert total[1:5] == [str(count), str(count), "0", "0"]  # members, done, cohorts, epochs left


@every_case
def test_the_same_command_trains_nothing_and_changes_no_row(folder, arguments, count, old, command):
    files, runs = ledger_files(old, folder), run_ids(old, folder)
    code, out, err = command(run, *arguments, "--storage", str(old))
    assert code == 0, out + err
    assert f"{count} of {count} members done, 0 failed, 0 trained now" in out
    assert ledger_files(old, folder) == files
    assert len(runs) == count
    assert run_ids(old, folder) == runs
    table = pd.read_parquet(old / folder / "results.parquet")
    assert {f"{study} {key}": run for study, key, run in table[["study", "key", "mlflow_run_id"]].values} == runs
    assert (old / folder / "report" / "index.html").stat().st_size > 100_000


@pytest.mark.slow
def test_more_seeds_train_the_missing_members_alone(old, command):
    files = ledger_files(old, "quickstart")
    before = sweeps.results("quickstart", str(old)).results.set_index("key")
    code, out, err = command(run, *QUICKSTART, "--seeds", "2", "--max-concurrent", "1", "--storage", str(old))
    assert code == 0, out + err
    assert "24 of 24 members done, 0 failed, 12 trained now" in out
    assert ledger_files(old, "quickstart").items() >= files.items()
    after = sweeps.results("quickstart", str(old)).results.set_index("key")
    assert after["seed"].value_counts().to_dict() == {0: 12, 1: 12}
    pd.testing.assert_frame_equal(after.loc[before.index, before.columns], before)
    new = after[after.columns.difference(before.columns)]
    assert list(new) == ["metrics.active_units"]  # measured since; a Gaussian code has no codebook
    assert new.loc[before.index].isna().all(axis=None)
    assert new["metrics.active_units"].drop(before.index).between(0, 64).all()


@every_case
def test_status_report_and_results_read_it(folder, arguments, count, old, command):
    table = sweeps.results(folder, str(old)).results
    assert (table["status"].value_counts().to_dict(), len(table)) == ({"finished": count}, count)
    code, out, err = command(status, folder, "--storage", str(old))
    assert code == 0, out + err
    assert out.splitlines()[0].endswith(f"{folder}: complete")
    code, out, err = command(report, folder, "--storage", str(old))
    assert code == 0, out + err
    rows = Ledger(Storage(str(old), folder)).read()
    written = pd.read_parquet(old / folder / "results.parquet")
    assert dict(zip(written["key"], written["metrics.elbo"], strict=True)) == {
        key: row.metrics["elbo"] for key, row in rows.items()
    }


def test_mlflow_is_rebuilt_from_it(old, command):
    (old / "mlflow.db").unlink()
    code, out, err = command(status, "quickstart", "--storage", str(old), "--rebuild-tracking")
    assert code == 0, out + err
    rows = Ledger(Storage(str(old), "quickstart")).read()
    client = MlflowClient(of_database(old / "mlflow.db"))
    runs = run_ids(old, "quickstart")
    assert {name.split()[1]: client.get_run(run).data.metrics["elbo"] for name, run in runs.items()} == {
        key: row.metrics["elbo"] for key, row in rows.items()
    }


def test_a_checkpoint_of_it_has_the_model_with_the_recorded_kl(old):
    place = Storage(str(old), "quickstart")
    ledger = Ledger(place)
    members = {member.key: member for member in saved.known_members(saved.last_plan(place), ledger)}
    row = ledger.read()["9248f6e7dfd5b76740de5ade"]
    images = load("digits", old)
    model = trained_model(place, members[row.key].config, row.epochs, images.validation.shape[1:])
    assert model.encode(images.validation).kl().mean().item() == pytest.approx(row.metrics["kl"], rel=1e-4)
