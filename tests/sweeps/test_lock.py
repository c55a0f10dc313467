import dataclasses
import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
from scripted import SMALL, row

from sweeps.errors import UserError
from sweeps.planning.plan import Plan
from sweeps.records.ledger import Ledger
from sweeps.records.lock import Holder, Lock, LockLostError, _started_s, permit
from sweeps.records.lock_file import FILE, PlainFile
from sweeps.records.storage import Storage
from trainables.checkpoint import CheckpointFile, StorageError


@pytest.fixture
def process():
    """Another living process."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        yield other
        other.kill()


def held_by(storage: Storage, age_s: float = 0.0, **changes) -> Holder:
    """Writes the lock of another holder, last refreshed `age_s` seconds ago."""
    holder = dataclasses.replace(Holder.here(), token="another", **changes)
    path = storage.local_path / FILE
    path.write_text(json.dumps(dataclasses.asdict(holder)))
    os.utime(path, (time.time() - age_s,) * 2)
    return holder


def of(process: subprocess.Popen) -> dict:
    return {"pid": process.pid, "started_s": _started_s(process.pid)}


def token(storage: Storage) -> str:
    return json.loads(storage.read(FILE))["token"]


def refused(storage: Storage) -> str:
    with pytest.raises(UserError) as caught, Lock(storage):
        pass
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_lock_is_there_while_it_is_held_and_gone_after(storage):
    with Lock(storage):
        assert json.loads(storage.read(FILE))["pid"] == os.getpid()
    assert os.listdir(storage.local_path) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, SystemExit])
def test_it_is_released_however_the_run_ends(storage, error):
    with pytest.raises(error), Lock(storage):
        raise error
    assert os.listdir(storage.local_path) == []


def test_a_living_process_keeps_others_out_and_is_named(storage, process):
    holder = held_by(storage, age_s=1e6, **of(process))
    message = refused(storage)
    assert f"host {holder.host}, pid {process.pid}, since {holder.since}" in message
    assert token(storage) == "another"


def test_a_dead_process_is_taken_over(storage, process, caplog):
    holder = of(process)
    process.kill()
    process.wait()
    held_by(storage, **holder)
    with Lock(storage):
        assert token(storage) != "another"
    assert f"pid {process.pid}" in caplog.text
    assert os.listdir(storage.local_path) == []


def test_a_zombie_is_dead(storage):
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    held_by(storage, **of(child))
    refused(storage)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    before = token(storage)
    with Lock(storage):
        assert token(storage) != before
    child.communicate()


def test_a_process_that_got_the_number_of_a_dead_one_is_told_from_it(storage, process):
    other = of(process)
    held_by(storage, pid=process.pid, started_s=other["started_s"] - 10)
    with Lock(storage):
        assert token(storage) != "another"


def test_another_host_is_believed_until_its_heartbeat_is_old(storage):
    held_by(storage, age_s=240, host="elsewhere", pid=2**30)
    message = refused(storage)
    assert "elsewhere" in message
    assert "5 minutes" in message
    assert f"delete {FILE} in {storage.full_uri}" in message
    held_by(storage, age_s=310, host="elsewhere", pid=os.getpid())
    with Lock(storage, beat_every_s=0.1):
        assert token(storage) != "another"


@pytest.mark.parametrize("jump_s", [-3 * 3600, 3 * 3600], ids=["backwards", "forwards"])
@pytest.mark.parametrize("lives", [True, False])
def test_a_clock_that_was_set_makes_nobody_lose_a_lock_or_keep_one(storage, jump_s, lives):
    held_by(storage, age_s=jump_s, host="elsewhere")
    beats = threading.Timer(0.2, os.utime, (storage.local_path / FILE,))
    if lives:
        beats.start()
        with pytest.raises(UserError, match="is being run by host elsewhere"), Lock(storage, beat_every_s=0.5):
            pass
        beats.join()
    else:
        with Lock(storage, beat_every_s=0.5):
            assert token(storage) != "another"


def test_the_lock_of_a_process_on_this_host_does_not_depend_on_the_clock(storage, process, monkeypatch):
    held_by(storage, age_s=1e6, **of(process))
    set_clock(monkeypatch, 5 * 3600)
    assert "is being run by" in refused(storage)
    process.kill()
    process.wait()
    with Lock(storage):
        assert token(storage) != "another"


def set_clock(monkeypatch, jump_s: float) -> None:
    """Sets the clock as the kernel does: the time of its start moves with it."""
    boot_time, now = psutil._pslinux.boot_time, time.time
    monkeypatch.setattr(psutil._pslinux, "boot_time", lambda: boot_time() + jump_s)
    monkeypatch.setattr(time, "time", lambda: now() + jump_s)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": 1}'])
def test_a_lock_that_nobody_lived_to_fill_is_taken_over(storage, content):
    (storage.local_path / FILE).write_text(content)
    with Lock(storage):
        assert json.loads(storage.read(FILE))["pid"] == os.getpid()


def test_the_heartbeat_keeps_the_lock_young(storage):
    with Lock(storage, beat_every_s=0.02):
        os.utime(storage.local_path / FILE, (0, 0))
        deadline = time.monotonic() + 10
        while time.time() - storage.modified_s(FILE) > 100:
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_a_heartbeat_that_cannot_be_written_stops_nothing(storage, monkeypatch):
    tried = threading.Event()

    def full(*_):
        tried.set()
        raise UserError("cannot write to --storage: No space left on device")

    monkeypatch.setattr(PlainFile, "refresh", full)
    with Lock(storage, beat_every_s=0.02) as lock:
        assert tried.wait(10)
        time.sleep(0.1)
        assert lock._beating.is_alive()
        storage.check()
        storage.write("ledger/file", b"written")


def changes(storage: Storage):
    """Calls of every method that changes a storage."""
    yield lambda: storage.write("ledger/more", b"")
    yield lambda: storage.move("ledger/kept", "ledger/set_aside/kept")
    yield lambda: storage.delete("ledger/kept")
    yield lambda: Ledger(storage).append([row(Plan(SMALL).members["grid"][0])])
    yield lambda: Ledger(storage).begin_cohort("cohort", ["member"])


def files(storage: Storage) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in storage.local_path.rglob("*") if path.is_file()}


@pytest.mark.parametrize("lost", ["taken over", "deleted", "damaged"])
def test_who_loses_the_lock_changes_nothing_more_and_leaves_it_to_the_other(storage, lost):
    with Lock(storage):
        storage.write("ledger/kept", b"1")
        if lost == "taken over":
            held_by(storage, host="elsewhere")
        elif lost == "deleted":
            (storage.local_path / FILE).unlink()
        else:
            (storage.local_path / FILE).write_text("{")
        before = files(storage)
        for change in changes(storage):
            with pytest.raises(LockLostError, match="writes nothing more"):
                change()
        with pytest.raises(LockLostError):
            storage.check()
        assert files(storage) == before
    assert files(storage) == before


def test_workers_may_write_checkpoints_as_long_as_their_driver_holds_the_lock(storage):
    file = storage.local_path / "checkpoints" / "cohort" / "members.safetensors"
    with Lock(storage):
        checkpoint = CheckpointFile(str(file.parent), "members", permit(storage))
        checkpoint.write(b"own")
        held_by(storage, host="elsewhere")
        with pytest.raises(LockLostError):
            permit(storage)
        with pytest.raises(StorageError, match="has lost its lock"):
            checkpoint.write(b"too late")
        (storage.local_path / FILE).unlink()
        with pytest.raises(StorageError, match="has lost its lock"):
            checkpoint.write(b"too late")
    assert [(path.name, path.read_bytes()) for path in file.parent.iterdir()] == [(file.name, b"own")]


def test_without_a_lock_every_write_is_allowed(storage):
    assert permit(storage) is None


def test_the_heartbeat_notices_that_the_lock_is_lost(storage):
    def lost() -> bool:
        try:
            storage.check()
        except LockLostError as error:
            return "host elsewhere" in str(error)
        return False

    with Lock(storage, beat_every_s=0.02):
        assert not lost()
        held_by(storage, host="elsewhere")
        deadline = time.monotonic() + 10
        while not lost():
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert token(storage) == "another"


def test_a_heartbeat_never_displaces_another_holder(storage):
    file = PlainFile(storage)
    own = file.create(b"own")
    storage.write(FILE, b"another")
    file.refresh(own)
    assert storage.read(FILE) == b"another"


def test_who_has_released_the_lock_may_write_again(storage):
    with Lock(storage):
        pass
    storage.write("file", b"1")


def contend(storages: list[Storage], pause_s: float) -> list[bool]:
    """Requests the lock from all storages at once and keeps it until all have tried; tells which got it."""
    ready, tried = threading.Barrier(len(storages)), threading.Barrier(len(storages))
    got = [False] * len(storages)

    def want(index: int) -> None:
        lock = Lock(storages[index], pause_s=pause_s, beat_every_s=0.1)
        ready.wait()
        try:
            lock.__enter__()
            got[index] = True
        except UserError:
            pass
        tried.wait()
        if got[index]:
            lock.__exit__()

    threads = [threading.Thread(target=want, args=(index,)) for index in range(len(storages))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return got


def test_of_many_that_come_at_once_one_gets_it(storage):
    storages = [Storage(storage.uri, storage.name) for _ in range(8)]
    for _ in range(3):
        assert sum(contend(storages, pause_s=0.5)) == 1


def test_of_many_that_take_over_at_once_one_gets_it(storage):
    storages = [Storage(storage.uri, storage.name) for _ in range(8)]
    for _ in range(2):
        held_by(storage, age_s=1e6, host="elsewhere")
        assert sum(contend(storages, pause_s=0.5)) == 1


def test_without_exclusive_creation_the_last_of_many_that_come_at_once_keeps_the_file(storage):
    storage.local = False
    with ThreadPoolExecutor(8) as pool:
        files = [PlainFile(storage, pause_s=0.5) for _ in range(8)]
        created = list(pool.map(lambda one: one[1].create(b"%d" % one[0]), enumerate(files)))
    kept = [version.content for version in created if version is not None]
    assert kept == [storage.read(FILE)]
