"""Checks the promises of docs/security.md."""

import contextlib
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient
from scripted import SMALL, row

from search_spaces.space import Study, Sweep
from sweeps.on_ray.authentication import FILE, own_token
from sweeps.planning import saved
from sweeps.planning.plan import Overrides, Plan
from sweeps.planning.unfold import unfold
from sweeps.records.ledger import Ledger
from sweeps.redact import redact
from sweeps.report.write import write_outputs
from sweeps.tracking.tracker import Tracker

SECRETS = {"AWS_SECRET_ACCESS_KEY": "planted-aws-secret", "MLFLOW_TRACKING_PASSWORD": "planted-mlflow-secret"}
PASSWORD = "planted-uri-password"


def holds(folder: Path, *secrets: str) -> list[str]:
    """The files below a folder that contain one of the secrets."""
    assert folder.is_dir()
    files = (path for path in folder.rglob("*") if path.is_file())
    return [str(path) for path in files if any(secret.encode() in path.read_bytes() for secret in secrets)]


@pytest.fixture
def no_settings(monkeypatch):
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)


# --- Ray's token -----------------------------------------------------------------------------------------------------


def test_the_token_is_private_and_gone_after(no_settings, tmp_path):
    (tmp_path / FILE).write_text("left by a run that was killed, readable by all")
    with own_token(tmp_path):
        assert os.environ["RAY_AUTH_TOKEN_PATH"] == str(tmp_path / FILE)
        assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600
        assert re.fullmatch(r"[0-9a-f]{64}", (tmp_path / FILE).read_text())
    assert list(tmp_path.iterdir()) == []
    assert "RAY_AUTH_TOKEN_PATH" not in os.environ


def test_a_file_that_somebody_else_put_there_is_not_followed(no_settings, tmp_path):
    (tmp_path / "elsewhere").write_text("")
    (tmp_path / FILE).symlink_to(tmp_path / "elsewhere")
    with own_token(tmp_path):
        assert (tmp_path / "elsewhere").read_text() == ""


def test_without_a_folder_it_lies_in_a_private_temporary_one(no_settings):
    with own_token(None):
        path = Path(os.environ["RAY_AUTH_TOKEN_PATH"])
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert not path.parent.exists()


def test_the_token_of_a_driver_that_took_over_stays(no_settings, tmp_path):
    with own_token(tmp_path):
        (tmp_path / FILE).write_text("the other's")
    assert (tmp_path / FILE).read_text() == "the other's"


@pytest.mark.parametrize("name", ["RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"])
def test_settings_of_the_users_own_stay(no_settings, monkeypatch, tmp_path, name):
    monkeypatch.setenv(name, "own")
    before = dict(os.environ)
    with own_token(tmp_path):
        assert dict(os.environ) == before
        assert list(tmp_path.iterdir()) == []
    assert dict(os.environ) == before


JOIN = """
import sys
from ray._raylet import GcsClient
try:
    GcsClient(address=sys.argv[1])
except Exception as error:
    sys.exit(str(error))
"""
CONNECTED = """
import os, subprocess, sys
from pathlib import Path
import ray
from sweeps.on_ray.cluster import connected

strangers = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
with connected(address=None, device="cpu", workers=1, max_concurrent=1, token_folder=Path(".")):
    token = Path("ray_auth_token").read_text()
    address = ray.get_runtime_context().gcs_address
    knows, guesses = ({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": text} for text in (token, "0" * 64))
    for setting in (knows, {}, guesses):
        join = subprocess.run([sys.executable, "-c", os.environ["JOIN"], address], env=strangers | setting,
                              capture_output=True, text=True)
        print("in" if join.returncode == 0 else "refused" if "InvalidAuthToken" in join.stderr else join.stderr)
    logs = Path(ray._private.worker._global_node.get_session_dir_path())
    files = [path for path in logs.rglob("*") if path.is_file()]
    print(len(files) > 5, any(token.encode() in path.read_bytes() for path in files))
"""


def test_only_who_has_the_token_can_join_and_no_log_holds_it(tmp_path):
    home, folder = tmp_path / "home", tmp_path / "folder"
    home.mkdir(), folder.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    ended = subprocess.run(
        [sys.executable, "-c", CONNECTED],
        cwd=folder,
        env=environment | {"HOME": str(home), "JOIN": JOIN},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines() == ["in", "refused", "refused", "True False"]
    assert [path.name for path in tmp_path.rglob("*")] in (["home", "folder"], ["folder", "home"])


# --- secrets ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("no answer from http://me:pass@host:5000/x", "no answer from http://me:***@host:5000/x"),
        ("s3://KEY:se%2Fcr@et@bucket", "s3://KEY:***@bucket"),
        ("postgresql+psycopg2://me:p:w@host/db", "postgresql+psycopg2://me:***@host/db"),
        ("http://planted@host:5000/x", "http://***@host:5000/x"),
        ("http://me:a/b@c/d@host/x", "http://me:***@host/x"),
        ("http://host/x?token=planted&page=2", "http://host/x?token=***&page=2"),
        ("s3://b?endpoint_override=http://u:p@h", "s3://b?endpoint_override=http://u:***@h"),
        ("s3://b?endpoint_override=http%3A%2F%2Fu:p%40h", "s3://b?endpoint_override=http://u:***@h"),
        ("s3://b?endpoint_override=u:p@h&region=x", "s3://b?endpoint_override=***@h&region=x"),
        ("http://me:12/3@host/x", "http://me:***@host/x"),
        ("http://me:a?b=c@host/x?page=2", "http://me:***@host/x?page=2"),
        ("http://me:a#b@host", "http://me:***@host"),
        ("http://me:a@b:c/d@host", "http://me:***@host"),
        ("http://[me:a@host", "http://[me:***@host"),
        ("http://host/#/x?access_token=planted", "http://host/#/x?access_token=***"),
        ("http://host:x/?secret=planted", "http://host:x/?secret=***"),
        ("got 'http://me:it's@host'", "got 'http://me:***@host'"),
        ("abfs://container@account.net/x", "abfs://container@account.net/x"),
        ("gs://anonymous@bucket/me@x", "gs://anonymous@bucket/me@x"),
        ("s3://bucket/me@x", "s3://bucket/me@x"),
        ("sqlite:////home/me@x/a b", "sqlite:////home/me@x/a b"),
        ("http://h:1/#/e/1?orderByKey=metrics.%60elbo%60", "http://h:1/#/e/1?orderByKey=metrics.%60elbo%60"),
        ("http://me:planted@a and https://planted@b", "http://me:***@a and https://***@b"),
        ("http://host:5000 and me@host", "http://host:5000 and me@host"),
        ("./runs", "./runs"),
    ],
)
def test_passwords_in_addresses_are_not_shown(text, shown):
    assert redact(text) == shown


def test_nothing_that_is_written_holds_a_secret_of_the_environment(storage, monkeypatch, empty_database, tmp_path):
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    plan = Plan(SMALL, Overrides(only="grid"))
    members = plan.members["grid"]
    rows = {member.key: row(member) for member in members}
    uri = empty_database(tmp_path / "mlflow.db")
    tracker = Tracker(uri, plan, storage, tmp_path)
    tracker.start(members, {})
    tracker.ended(members, rows)
    tracker.close("FINISHED")
    Ledger(storage).append(list(rows.values()))
    saved.save_plan(storage, plan.overrides)
    write_outputs(storage, unfold(plan, Ledger(storage)), rows, tracker.run_ids)
    assert holds(tmp_path, *SECRETS.values()) == []
    assert str(tmp_path / "mlflow.db") in holds(tmp_path, members[0].key)
    experiment = MlflowClient(uri).get_experiment_by_name("small")
    assert experiment is not None


@pytest.mark.slow
def test_a_real_run_leaves_no_secret_in_its_files_its_output_or_rays_logs(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {"HOME": str(home), "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"} | SECRETS
    command = [sys.executable, "-m", "sweeps.run", "quickstart", "--only", "estimators", "--set", "epochs=1"]
    began = time.time()
    for tracking in ([], ["--tracking-uri", f"http://me:{PASSWORD}@127.0.0.1:9", "--seeds", "2"]):
        ended = subprocess.run(
            [*command, *tracking], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=250
        )
        output = ended.stdout + ended.stderr
        assert ended.returncode == 0, output
        assert "Starting Ray" in output
        assert not any(secret in output for secret in (*SECRETS.values(), PASSWORD))
        assert "Token authentication" not in output
    assert "MLflow is incomplete" in output
    assert holds(tmp_path, *SECRETS.values(), PASSWORD) == []
    sessions = [path for path in Path("/tmp/ray").glob("session_2*") if path.stat().st_mtime >= began]
    assert sessions
    assert [found for path in sessions for found in holds(path, *SECRETS.values(), PASSWORD)] == []
    assert not (home / ".ray").exists()
    assert not list(tmp_path.rglob(FILE))


# --- servers and names -----------------------------------------------------------------------------------------------


def listening() -> set[str]:
    """The addresses and ports, in the kernel's notation, on which TCP sockets of this machine listen."""
    lines = [
        line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]
    ]
    return {fields[1] for fields in lines if fields[3] == "0A"}


def test_the_user_interface_is_started_on_the_loopback_interface(monkeypatch, tmp_path):
    from sweeps.ui import ui

    def started(command, **_):
        assert command[command.index("--host") + 1] == "127.0.0.1"
        raise InterruptedError

    (tmp_path / "mlflow.db").touch()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setattr(subprocess, "Popen", started)
    with pytest.raises(InterruptedError):
        ui(storage=str(tmp_path), port=port)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="needs Linux")
def test_the_user_interface_listens_on_the_loopback_interface_alone_and_ends_when_it_is_killed(tmp_path):
    (tmp_path / "runs").mkdir()
    MlflowClient(f"sqlite:///{tmp_path / 'runs' / 'mlflow.db'}").search_experiments()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "sweeps.ui", "--port", str(port)],
        cwd=tmp_path,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert server.stdout is not None
    try:
        printed = server.stdout.readline()
        own = {address for address in listening() if address.endswith(f":{port:04X}")}
        server.kill()  # its process alone
        server.wait(30)
        deadline = time.monotonic() + 60
        while any(address.endswith(f":{port:04X}") for address in listening()):
            assert time.monotonic() < deadline, "MLflow's server outlives the command that started it"
            time.sleep(0.3)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.stdout.close()
    assert printed == f"MLflow on http://127.0.0.1:{port} (Ctrl-C ends it)\n"
    assert own == {f"0100007F:{port:04X}"}


@pytest.mark.parametrize("name", ["", "..", "../x", "/etc", "a/../b", "a//b", "a/", "A", "a b", "a\n", "a\0", "ä", "~"])
def test_names_that_become_paths_cannot_leave_the_folder(name):
    with pytest.raises(ValueError, match="name may have"):
        Study(name=name, title="", source="", base={})
    with pytest.raises(ValueError, match="name may have"):
        Sweep(name, "")


def test_a_storage_above_the_working_folder_is_fine(command, tmp_path, monkeypatch):
    from sweeps.run import run

    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    code, out, _ = command(run, "quickstart", "--plan", "--storage", "../runs")
    assert code == 0
    assert "64" in out
