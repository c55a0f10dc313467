"""Stored images are read once and mapped; changes are noticed, damage is repaired, many processes may store at once."""

import logging
import os
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from members import member

from trainables.data import DATASETS, Images, load, store
from trainables.data.store import stored
from trainables.training import train

PARTS = {
    "train": np.arange(5 * 3 * 4 * 2, dtype=np.uint8).reshape(5, 3, 4, 2),
    "test": np.arange(2 * 3 * 4 * 2, dtype=np.uint8)[::-1].reshape(2, 3, 4, 2),
}


def other_parts():
    return {part: images + 1 for part, images in PARTS.items()}


def never():
    raise AssertionError("read although stored")


@pytest.fixture
def source(tmp_path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(b"first")
    return path


@pytest.fixture
def keep(tmp_path, source):
    """Calls `stored` for one data set in one folder."""
    return lambda read, name="some": stored(name, [source], tmp_path / "arrow", read)


def change(source: Path, content: bytes = b"other") -> None:
    source.write_bytes(content)
    os.utime(source, ns=(time.time_ns(), source.stat().st_mtime_ns + 10**9))


def assert_equal(actual, desired):
    assert list(actual) == list(desired)
    for part, images in desired.items():
        assert actual[part].dtype == np.uint8
        np.testing.assert_array_equal(actual[part], images)


def test_reads_once_and_then_maps_read_only_contiguous_arrays(keep):
    assert_equal(keep(lambda: PARTS), PARTS)
    again = keep(never)
    assert_equal(again, PARTS)
    for images in again.values():
        assert not images.flags.writeable
        assert images.flags.c_contiguous


def test_images_of_any_memory_layout_are_stored(keep):
    strided = {part: images.transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2) for part, images in PARTS.items()}
    assert not strided["train"].flags.c_contiguous
    keep(lambda: strided)
    assert_equal(keep(never), PARTS)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux's list of mappings")
def test_arrays_are_views_of_the_file(keep, tmp_path):
    images = keep(lambda: PARTS)["train"]
    [file] = (tmp_path / "arrow").iterdir()
    mappings = [
        line.split()[0].split("-") for line in Path("/proc/self/maps").read_text().splitlines() if str(file) in line
    ]
    address = images.__array_interface__["data"][0]
    assert any(int(start, 16) <= address < int(end, 16) for start, end in mappings)


def test_a_changed_file_is_read_anew_and_other_images_are_told(keep, source, tmp_path, caplog):
    keep(lambda: PARTS)
    change(source)
    with caplog.at_level(logging.WARNING):
        assert_equal(keep(other_parts), other_parts())
    assert "'some' has other images than when it was last read" in caplog.text
    assert len(list((tmp_path / "arrow").iterdir())) == 1


def test_a_file_that_was_only_touched_is_read_anew_in_silence(keep, source, caplog):
    keep(lambda: PARTS)
    change(source, b"first")
    with caplog.at_level(logging.WARNING):
        assert_equal(keep(lambda: {k: v.copy() for k, v in PARTS.items()}), PARTS)
    assert caplog.text == ""


def test_data_sets_do_not_disturb_each_other(keep):
    # Their file names have the same beginning.
    keep(lambda: PARTS, "npz:a b")
    keep(other_parts, "npz:a/b")
    keep(lambda: PARTS, "npz:a-b")
    assert_equal(keep(never, "npz:a b"), PARTS)
    assert_equal(keep(never, "npz:a/b"), other_parts())
    assert_equal(keep(never, "npz:a-b"), PARTS)


@pytest.mark.parametrize("length", [0, 7, 300, -1])
def test_a_truncated_store_is_read_anew_and_repaired(keep, tmp_path, length):
    keep(lambda: PARTS)
    [file] = (tmp_path / "arrow").iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[:length])
    assert_equal(keep(lambda: PARTS), PARTS)
    assert file.read_bytes() == whole
    keep(never)


def test_zeroed_bytes_in_the_middle_of_the_store_are_told_and_repaired(keep, tmp_path, caplog):
    parts = {"train": np.random.default_rng(0).integers(256, size=(450, 1, 28, 28), dtype=np.uint8)}
    keep(lambda: parts)
    [file] = (tmp_path / "arrow").iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[:100_000] + bytes(50_000) + whole[150_000:])
    with caplog.at_level(logging.WARNING):
        assert_equal(keep(lambda: parts), parts)
    [warning] = caplog.messages
    assert warning == f"The stored images of data set 'some' are damaged ({file}); they are read again from its files."
    assert file.read_bytes() == whole
    caplog.clear()
    assert_equal(keep(never), parts)
    assert caplog.messages == []


@pytest.mark.parametrize("block", [8, 1000])
def test_every_changed_byte_is_noticed(keep, tmp_path, monkeypatch, block):
    monkeypatch.setattr(store, "_BLOCK", block)  # of several blocks, and of one
    keep(lambda: PARTS)
    [file] = (tmp_path / "arrow").iterdir()
    whole = file.read_bytes()
    for part in PARTS.values():
        first = whole.index(part.tobytes())
        for at in range(first, first + part.size):
            file.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
            assert store._mapped(file) is None
    file.write_bytes(whole)
    assert store._mapped(file) is not None


def test_the_checksum_is_computed_once_in_a_process(tmp_path, monkeypatch):
    np.savez(tmp_path / "own.npz", train_images=np.zeros((20, 4, 4), np.uint8))
    DATASETS["npz:own.npz"](tmp_path)
    checked = []
    checksum = store._sha256
    monkeypatch.setattr(store, "_sha256", lambda parts: checked.append(1) or checksum(parts))
    for _ in range(3):
        load("npz:own.npz", tmp_path)
    assert checked == [1]


def test_a_store_of_the_earlier_format_is_replaced_in_silence(keep, tmp_path, monkeypatch, caplog):
    dumps = store.json.dumps
    with monkeypatch.context() as earlier:
        earlier.setattr(store, "FORMAT", 1)
        earlier.setattr(store.json, "dumps", lambda value: dumps(value).replace("blocks_sha256", "sha256"))
        keep(lambda: PARTS)
    [before] = (tmp_path / "arrow").iterdir()
    with caplog.at_level(logging.WARNING):
        assert_equal(keep(lambda: {k: v.copy() for k, v in PARTS.items()}), PARTS)
    [after] = (tmp_path / "arrow").iterdir()
    assert before != after
    assert caplog.messages == []


def test_a_foreign_arrow_file_is_replaced(keep, tmp_path):
    keep(lambda: PARTS)
    [file] = (tmp_path / "arrow").iterdir()
    table = pa.table({"image": [1, 2]})
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    assert_equal(keep(lambda: PARTS), PARTS)
    assert_equal(keep(never), PARTS)


def test_a_folder_that_is_not_to_be_written_is_left_alone(keep, tmp_path):
    tmp_path.chmod(0o555)
    try:
        assert_equal(keep(lambda: PARTS), PARTS)
        assert not (tmp_path / "arrow").exists()
    finally:
        tmp_path.chmod(0o755)


def test_where_the_store_cannot_be_made_images_are_loaded_all_the_same(keep, tmp_path):
    (tmp_path / "arrow").write_text("in the way")
    assert_equal(keep(lambda: PARTS), PARTS)


def test_a_full_disk_leaves_nothing_behind(keep, tmp_path, monkeypatch):
    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store.pa, "record_batch", full)
    assert_equal(keep(lambda: PARTS), PARTS)
    assert list((tmp_path / "arrow").iterdir()) == []


def test_the_first_file_in_place_stays(keep, tmp_path):
    def read():
        keep(lambda: PARTS)  # another process is faster
        [file] = (tmp_path / "arrow").iterdir()
        inodes.append(file.stat().st_ino)
        return PARTS

    inodes = []
    keep(read)
    [file] = (tmp_path / "arrow").iterdir()
    assert file.stat().st_ino == inodes[0]


STORE = """
import sys, time
from pathlib import Path
import numpy as np
from trainables.data.store import stored

folder, start = Path(sys.argv[1]), Path(sys.argv[1]) / "start"

def read():
    (folder / f"ready-{sys.argv[2]}").touch()
    while not start.exists():
        time.sleep(0.001)
    return {"train": np.arange(3_000_000, dtype=np.uint8).reshape(-1, 3, 10, 10)}

print(int(stored("some", [folder / "source"], folder / "arrow", read)["train"].sum(dtype=np.int64)))
"""


def test_several_processes_at_once(tmp_path, source):
    workers = [
        subprocess.Popen([sys.executable, "-c", STORE, str(tmp_path), str(n)], stdout=subprocess.PIPE, text=True)
        for n in range(3)
    ]
    # Nothing is stored yet, so all of them read before any of them may write.
    deadline = time.monotonic() + 60
    while len(list(tmp_path.glob("ready-*"))) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    (tmp_path / "start").touch()
    sums = [int(worker.communicate(timeout=60)[0]) for worker in workers]
    assert sums == [int(np.arange(3_000_000, dtype=np.uint8).sum(dtype=np.int64))] * 3
    assert len(list((tmp_path / "arrow").iterdir())) == 1


def test_training_on_mapped_images_warns_of_nothing_and_gives_the_same_numbers(tmp_path):
    digits = load("digits", Path("nowhere"))
    numbers = []
    for name, mode in (("mapped", 0o755), ("read", 0o555)):
        folder = tmp_path / name
        folder.mkdir()
        np.savez(folder / "own.npz", train_images=digits.train[:100, 0])
        folder.chmod(mode)
        config = member(data={"name": "npz:own.npz"}, epochs=2)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.set_warn_always(True)
            try:
                [result] = train([config], data_dir=folder)
                writeable = load("npz:own.npz", folder).train.flags.writeable
                complaints = [warning for warning in caught if "not writable" in str(warning.message)]
                torch.from_numpy(load("npz:own.npz", folder).train)  # warns, so a warning in training would be seen
            finally:
                torch.set_warn_always(False)
        assert complaints == []
        assert sum("not writable" in str(warning.message) for warning in caught) == (0 if writeable else 1)
        numbers.append((writeable, result.metrics))
    assert [writeable for writeable, _ in numbers] == [False, True]
    assert numbers[0][1] == numbers[1][1]
    assert isinstance(load("npz:own.npz", tmp_path / "mapped"), Images)
