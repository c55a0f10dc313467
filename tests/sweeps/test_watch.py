"""The watch over Ray: processes that end, a head that does not answer, and cohorts that wait."""

import logging
import os
import socket
import subprocess
import sys
import time

import psutil
import pytest

from sweeps.on_ray import idle, watch
from sweeps.on_ray.idle import Idle
from sweeps.on_ray.watch import Head, OwnRay, RayLostError, Watch


@pytest.fixture
def clock(monkeypatch):
    """A monotonic clock that tests set."""

    class Clock:
        now = 1000.0

        def monotonic(self) -> float:
            return self.now

    clock = Clock()
    monkeypatch.setattr(idle, "time", clock)
    monkeypatch.setattr(watch, "time", clock)
    return clock


@pytest.fixture
def raylet(tmp_path):
    """A child process with the name of Ray's raylet, and a process that it has started, as its worker would be."""
    program = tmp_path / "raylet"
    program.symlink_to("/bin/sleep")
    process = subprocess.Popen([program, "600"])
    worker = subprocess.Popen(["sleep", "600"], env={**os.environ, "RAY_RAYLET_PID": str(process.pid)})
    yield process, worker
    for each in (process, worker):
        each.kill()
        each.wait()


def soon(condition, timeout_s: float = 10.0) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return bool(condition())


def test_a_raylet_that_is_killed_is_noticed_and_its_workers_are_killed(raylet):
    process, worker = raylet
    own = OwnRay()
    assert soon(lambda: psutil.Process(process.pid).name() == "raylet")
    with Watch(own.ended) as watching:
        watching.check()
        time.sleep(0.5)
        watching.check()
        process.kill()
        assert soon(lambda: watching.lost)
        with pytest.raises(RayLostError, match="Ray's raylet has ended"):
            watching.check()
        watching.close()
    assert worker.poll() is None
    own.kill()
    assert worker.wait(10) == -9


@pytest.mark.parametrize(
    ("interrupted", "code", "message"),
    [(False, 2, "Ray has ended"), (True, 130, "Interrupted, and Ray has ended too")],
)
def test_a_process_whose_own_thread_is_blocked_is_ended_with_one_line(interrupted, code, message):
    lines = [
        "import time",
        "from sweeps.on_ray import watch",
        "watch.GRACE_S = 0.5",
        "def kill(): print('killed', flush=True)",
        "watching = watch.Watch(lambda: 'Ray has ended', kill, 'do this')",
        f"watching.interrupted = {interrupted}",
        "with watching: time.sleep(60)",
    ]
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, timeout=50)
    assert (done.returncode, done.stdout, done.stderr) == (code, "killed\n", f"{message}; do this\n")


def test_a_head_is_given_up_when_it_has_not_answered_for_a_minute(clock):
    with socket.create_server(("127.0.0.1", 0)) as server:
        head = Head(f"127.0.0.1:{server.getsockname()[1]}")
        for _ in range(30):
            clock.now += 10
            assert head.away() is None
    clock.now += 59
    assert head.away() is None
    clock.now += 10
    assert "has not answered for 69 s" in (head.away() or "")


def test_on_a_cluster_waiting_is_told_every_minute_and_has_no_end(clock, caplog):
    waits = Idle(own=False)
    for _ in range(3600):
        clock.now += 1
        waits.step(training=0, handed_out=4, alive_nodes=0)
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(told) == 60
    assert "4 cohorts have waited for 60 s: no node of the cluster is alive" in told[0]
    assert "the same command goes on" in told[0]


def test_without_a_node_here_the_run_ends_after_a_minute(clock):
    waits = Idle(own=True)
    clock.now += 59
    waits.step(training=0, handed_out=4, alive_nodes=0)
    clock.now += 2
    with pytest.raises(RayLostError, match="4 cohorts have waited for 61 s: no node of the cluster is alive"):
        waits.step(training=0, handed_out=4, alive_nodes=0)


def test_a_slow_start_here_is_told_and_given_up_after_minutes(clock, caplog):
    waits, began = Idle(own=True), clock.now
    while clock.now < began + idle.GIVE_UP_S - 1:
        clock.now += 1
        waits.step(training=0, handed_out=4, alive_nodes=1)
    clock.now += 1
    with pytest.raises(RayLostError, match="Ray has started none of them"):
        waits.step(training=0, handed_out=4, alive_nodes=1)
    assert len(caplog.records) == 4


@pytest.mark.parametrize(("training", "handed_out"), [(1, 4), (0, 0)])
def test_who_trains_or_has_nothing_to_train_does_not_wait(clock, caplog, training, handed_out):
    waits = Idle(own=True)
    for _ in range(1000):
        clock.now += 1
        waits.step(training=training, handed_out=handed_out, alive_nodes=0)
    assert not caplog.records
