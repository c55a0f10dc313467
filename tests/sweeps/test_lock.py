import dataclasses
import json
import os
import subprocess
import sys
import threading
import time

import pytest

from sweeps.errors import UserError
from sweeps.records.lock import FILE, Holder, Lock, _started_s
from sweeps.records.storage import Storage


@pytest.fixture
def process():
    """Another process that lives."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        yield other
        other.kill()


def held_by(storage: Storage, age_s: float = 0.0, **changes) -> Holder:
    """Leaves a lock of another holder, last refreshed `age_s` ago."""
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
    with Lock(storage):
        pass
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
    with Lock(storage):
        assert token(storage) != "another"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": 1}'])
def test_a_lock_that_nobody_lived_to_fill_is_taken_over(storage, content):
    (storage.local_path / FILE).write_text(content)
    with Lock(storage):
        assert json.loads(storage.read(FILE))["pid"] == os.getpid()


def test_the_heartbeat_keeps_the_lock_young(storage):
    with Lock(storage, beat_every_s=0.02):
        os.utime(storage.local_path / FILE, (0, 0))
        deadline = time.monotonic() + 10
        while storage.age_s(FILE) > 100:
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_a_heartbeat_that_cannot_be_written_stops_nothing(storage, monkeypatch):
    tried = threading.Event()

    def full(*_):
        tried.set()
        raise UserError("cannot write to --storage: No space left on device")

    lost = threading.Event()
    with Lock(storage, lost=lost.set, beat_every_s=0.02) as lock:
        monkeypatch.setattr(storage, "write", full)
        assert tried.wait(10)
        time.sleep(0.1)
        assert lock._beating.is_alive()
    assert not lost.is_set()


def test_who_loses_the_lock_is_told_and_leaves_it_to_the_other(storage):
    lost = threading.Event()
    with Lock(storage, lost=lost.set, beat_every_s=0.02):
        held_by(storage, host="elsewhere")
        assert lost.wait(10)
    assert token(storage) == "another"


def run_until_interrupted(storage: Storage) -> None:
    held_by(storage, host="elsewhere")
    time.sleep(10)


def test_losing_the_lock_interrupts_the_run(storage):
    lock = Lock(storage, beat_every_s=0.02)
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt), lock:
        run_until_interrupted(storage)
    assert time.monotonic() - began < 5


def contend(storages: list[Storage], pause_s: float) -> list[bool]:
    """Who gets the lock of those that all want it at the same time, and keep it until all have tried."""
    ready, tried = threading.Barrier(len(storages)), threading.Barrier(len(storages))
    got = [False] * len(storages)

    def want(index: int) -> None:
        lock = Lock(storages[index], pause_s=pause_s)
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


@pytest.mark.parametrize("local", [True, False], ids=["exclusive creation", "write and read back"])
def test_of_many_that_come_at_once_one_gets_it(storage, local):
    storages = [Storage(storage.uri, storage.name) for _ in range(8)]
    for place in storages:
        place.local = local
    for _ in range(3):
        assert sum(contend(storages, pause_s=0.5)) == 1


def test_of_many_that_take_over_at_once_one_gets_it(storage):
    storages = [Storage(storage.uri, storage.name) for _ in range(8)]
    for _ in range(2):
        held_by(storage, age_s=1e6, host="elsewhere")
        assert sum(contend(storages, pause_s=0.5)) == 1
