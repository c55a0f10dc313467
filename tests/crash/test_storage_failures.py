"""Real runs on storage that is full, read-only, moved, shared or remote."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import Command, keys, ledger
from pyarrow import fs

from trainables.checkpoint import CheckpointFile, StorageError

MEMBERS = 20
SHORT = ("--set", "epochs=2", "--max-concurrent", "1")
SECRET = "correct-horse-battery-staple"
pytestmark = pytest.mark.timeout(1200)


@pytest.fixture
def disk(tmp_path) -> Iterator:
    """Mounts a file system of some megabytes; skips the test if that is not permitted."""
    place = tmp_path / "disk"
    place.mkdir()

    def mount(megabytes: int) -> Path:
        command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(place)]
        if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("mounting is not permitted")
        return place

    yield mount
    while os.path.ismount(place):
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(disk: Path) -> Path:
    """Fills all free space; returns the file."""
    path = disk / "filler"
    with path.open("wb", buffering=0) as file:
        for size in (2**20, 2**12):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                pass
    return path


def test_a_plan_larger_than_the_disk_is_refused_before_anything_starts(disk, tmp_path):
    code, output = Command("--storage", disk(8) / "runs", cwd=tmp_path).end()
    assert code == 2, output
    assert output.count("\n") == 1
    assert "8 MB free" in output
    assert "20 trainings need about" in output


def test_a_checkpoint_that_does_not_fit_leaves_the_one_before_and_nothing_partial(disk):
    place = disk(1)
    file = CheckpointFile(str(place / "cohort"), "members")
    file.write(b"before")
    with pytest.raises(StorageError, match="No space left"):
        file.write(bytes(2**21))
    assert file.read() == b"before"
    assert [path.name for path in (place / "cohort").iterdir()] == ["members.safetensors"]


@pytest.mark.slow
def test_a_disk_that_fills_up_stops_the_run_and_the_same_command_goes_on(disk, tmp_path):
    place = disk(100)
    storage = place / "runs"
    first = Command("--storage", storage, *SHORT, cwd=tmp_path).until(lambda: ledger(storage))
    filler = fill(place)
    code, output = first.end()
    assert code == 2, output
    assert "No space left on device" in output.splitlines()[-1]
    assert "the same command continues" in output.splitlines()[-1]
    assert "Traceback" not in output
    before = keys(ledger(storage))
    assert 0 < len(before) < MEMBERS

    filler.unlink()
    code, output = Command("--storage", storage, *SHORT, cwd=tmp_path).end()
    assert code == 0, output
    assert f"{MEMBERS - len(before)} trained now" in output
    assert len(set(keys(ledger(storage)))) == len(keys(ledger(storage))) == MEMBERS


@pytest.mark.slow
def test_a_storage_that_becomes_read_only_stops_the_run_and_the_same_command_goes_on(disk, tmp_path):
    place = disk(100)
    storage = place / "runs"
    arguments = ("--storage", storage, *SHORT, "--tracking-uri", f"sqlite:///{tmp_path / 'mlflow.db'}")
    first = Command(*arguments, cwd=tmp_path).until(lambda: ledger(storage))
    while subprocess.run(["mount", "-o", "remount,ro", place], capture_output=True).returncode:  # a file is open
        time.sleep(0.01)
    code, output = first.end()
    assert code == 2, output
    assert "Read-only file system" in output.splitlines()[-1]
    assert "Traceback" not in output
    code, output = Command(*arguments, cwd=tmp_path).end()
    assert (code, output.count("\n")) == (2, 1)
    assert "Read-only file system" in output

    subprocess.run(["mount", "-o", "remount,rw", place], check=True)
    before = keys(ledger(storage))
    assert 0 < len(before) < MEMBERS
    code, output = Command(*arguments, cwd=tmp_path).end()
    assert code == 0, output
    assert f"{MEMBERS - len(before)} trained now" in output


@pytest.mark.slow
def test_of_two_drivers_the_second_is_refused_and_ctrl_c_frees_the_lock(tmp_path):
    storage = tmp_path / "runs"
    lock = storage / "quickstart" / "lock.json"
    first = Command("--storage", storage, "--set", "epochs=1000", cwd=tmp_path).until(lock.exists)
    holder = json.loads(lock.read_text())
    assert holder["pid"] == first.pid
    code, output = Command("--storage", storage, cwd=tmp_path).end()
    assert (code, output.count("\n")) == (2, 1), output
    assert f"host {holder['host']}, pid {first.pid}, since {holder['since']}" in output
    code, output = Command("--storage", storage, "--plan", cwd=tmp_path).end()
    assert code == 0, output
    first.until((storage / "mlflow.db").exists)
    first.signal(signal.SIGINT)
    code, output = first.end()
    assert code == 130, output
    assert not lock.exists()


@pytest.mark.slow
def test_a_storage_that_was_moved_or_copied_has_nothing_left_to_train(tmp_path):
    storage = tmp_path / "runs"
    code, output = Command("--storage", storage, *SHORT, cwd=tmp_path).end()
    assert code == 0, output
    shutil.copytree(storage, tmp_path / "copy")
    storage.rename(tmp_path / "moved")
    for place in (tmp_path / "moved", tmp_path / "copy"):
        code, output = Command("--storage", place, *SHORT, cwd=tmp_path).end()
        assert code == 0, output
        assert "0 trained now" in output
        assert f"Report: {place}/quickstart/report/index.html" in output
        with sqlite3.connect(place / "mlflow.db") as database:
            assert database.execute("select count(*) from runs").fetchone() == (1 + 1 + MEMBERS,)
    assert not storage.exists()


@pytest.fixture
def bucket(monkeypatch) -> Iterator[str]:
    """The URI of a folder on an S3 server; sets credentials in the environment."""
    server = pytest.importorskip("moto.server").ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    import boto3

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    server.start()
    _, port = server.get_host_and_port()
    client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}", region_name="us-east-1")
    client.create_bucket(Bucket="sweeps")
    yield f"s3://sweeps/runs?endpoint_override=127.0.0.1:{port}&scheme=http&region=us-east-1"
    server.stop()


@pytest.mark.slow
def test_on_an_object_store_a_killed_run_goes_on_and_trains_everything_once(bucket, tmp_path):
    store, root = fs.FileSystem.from_uri(bucket)

    def objects(folder: str) -> list[str]:
        selector = fs.FileSelector(f"{root}/quickstart/{folder}", recursive=True, allow_not_found=True)
        return [info.path for info in store.get_file_info(selector) if info.type == fs.FileType.File]

    def recorded() -> list[str]:
        return keys([store.open_input_file(path) for path in objects("ledger")])

    database = tmp_path / "mlflow.db"
    arguments = ("--storage", bucket, *SHORT, "--tracking-uri", f"sqlite:///{database}")
    first = Command(*arguments, cwd=tmp_path).until(lambda: objects("ledger"))
    printed = first.kill()
    before = recorded()
    assert 0 < len(before) < MEMBERS
    assert f"{root}/quickstart/lock.json" in objects("")

    code, output = Command(*arguments, cwd=tmp_path).end()
    assert code == 0, output
    assert "Taking over from a run that has ended without releasing its lock (host" in output
    assert f"{MEMBERS - len(before)} trained now" in output
    assert len(set(recorded())) == len(recorded()) == MEMBERS
    assert {path.rpartition("/")[2] for path in objects("checkpoints")} == {"members.safetensors"}
    assert f"{root}/quickstart/results.parquet" in objects("")
    assert f"{root}/quickstart/lock.json" not in objects("")
    with sqlite3.connect(database) as connection:
        assert connection.execute("select count(*), count(distinct status) from runs").fetchone() == (2 + MEMBERS, 1)

    everything = [store.open_input_file(path).readall() for path in objects("")]
    everything += [printed.encode(), output.encode(), database.read_bytes()]
    assert len(everything) > 10
    assert not any(SECRET.encode() in content for content in everything)
