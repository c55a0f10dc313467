import subprocess
from datetime import timedelta

import pytest

from sweeps.planning import sessions
from sweeps.planning.plan import Overrides

FEW, MANY = Overrides(seeds=1), Overrides(seeds=3, values=(("optim.lr", 0.1), ("encoder.hidden", [8])))


def test_sessions_are_read_as_they_were_recorded(storage):
    sessions.record(storage, FEW)
    sessions.record(storage, MANY)
    first, second = sessions.read(storage)
    assert (first.overrides, second.overrides) == (FEW, MANY)
    assert first.environment == second.environment == sessions.environment()
    assert first.started < second.started


def test_a_session_like_the_one_before_is_not_recorded(storage, monkeypatch):
    for overrides in (FEW, FEW, MANY, FEW):
        sessions.record(storage, overrides)
    assert [session.overrides for session in sessions.read(storage)] == [FEW, MANY, FEW]
    monkeypatch.setattr(sessions, "environment", lambda: {"version.torch": "another"})
    sessions.record(storage, FEW)
    assert len(sessions.read(storage)) == 4


def test_a_damaged_session_is_left_out(storage):
    sessions.record(storage, FEW)
    storage.write("sessions/20260101T000000000000.json", b"{")
    assert [session.overrides for session in sessions.read(storage)] == [FEW]


def test_a_time_belongs_to_the_session_that_began_last_before_it(storage, monkeypatch):
    for name in ("a", "b"):
        monkeypatch.setattr(sessions, "environment", lambda name=name: {"name": name})
        sessions.record(storage, FEW)
    found = sessions.read(storage)
    moment = timedelta(microseconds=1)
    assert sessions.environment_at(found, found[0].started - moment) == {}
    assert sessions.environment_at(found, found[1].started - moment) == {"name": "a"}
    assert sessions.environment_at(found, found[1].started + timedelta(days=9)) == {"name": "b"}


def test_the_environment_names_versions_and_the_commit():
    found = sessions.environment()
    assert found["version.torch"].startswith("2.")
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=sessions.__file__.rpartition("/")[0], capture_output=True)
    if head.returncode:
        pytest.skip("this is no checkout")
    assert found["mlflow.source.git.commit"] == head.stdout.decode().strip()


def test_without_git_there_is_no_commit(monkeypatch):
    monkeypatch.setenv("PATH", "")
    sessions.environment.cache_clear()
    try:
        assert "mlflow.source.git.commit" not in sessions.environment()
    finally:
        sessions.environment.cache_clear()
