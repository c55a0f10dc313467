import os
import signal
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from sweeps.records.scratch import OWNER, PREFIX, private_temporary_files, scratch_folder

HOLD = """
from sweeps.records.scratch import scratch_folder
with scratch_folder() as folder: print(folder, flush=True); input()
"""


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch) -> Path:
    """A folder for temporary files of this test only."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


@pytest.fixture
def other():
    """Another process with a scratch folder."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        process.kill()


def of(process: subprocess.Popen) -> Path:
    assert process.stdout is not None
    return Path(process.stdout.readline().strip())


def test_it_is_private_and_gone_after(place):
    with scratch_folder() as folder:
        assert folder.parent == place
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert list(place.iterdir()) == []


def test_what_a_killed_process_left_is_removed_by_the_next(place, other):
    left = of(other)
    (left / "tune").mkdir()
    (left / "tune" / "state.json").write_text("{}")
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert left.exists()
    with scratch_folder() as folder:
        assert list(place.iterdir()) == [folder]


def test_temporary_files_of_libraries_are_removed_after_a_kill_too(place):
    code = """
import tempfile
from sweeps.records.scratch import private_temporary_files
with private_temporary_files(): print(tempfile.mkdtemp(), flush=True); input()
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as killed:
        model = of(killed)
        killed.kill()
    assert model.exists()
    assert model.parent.parent == place
    with scratch_folder() as folder:
        assert list(place.iterdir()) == [folder]


def test_a_process_uses_its_usual_place_again_afterwards(place):
    with private_temporary_files() as folder:
        assert tempfile.gettempdir() == str(folder)
    assert tempfile.gettempdir() == str(place)
    assert list(place.iterdir()) == []


def test_those_of_living_processes_stay(other):
    alive = of(other)
    with scratch_folder() as one, scratch_folder() as two:
        assert one.exists()
        assert two.exists()
        assert alive.exists()
    assert alive.exists()


@pytest.mark.parametrize("content", [None, "", "{}", '{"pid": 1}'])
def test_what_has_no_owner_stays(place, content):
    folder = place / f"{PREFIX}somebody"
    folder.mkdir()
    if content is not None:
        (folder / OWNER).write_text(content)
    with scratch_folder():
        pass
    assert folder.exists()


def test_a_link_is_not_followed(place, other):
    left = of(other)
    other.kill()
    other.wait()
    elsewhere = place / "elsewhere"
    left.rename(elsewhere)
    os.symlink(elsewhere, left)
    with scratch_folder():
        pass
    assert (elsewhere / OWNER).exists()
