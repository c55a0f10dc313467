"""Kills a real MLflow server, or stops PostgreSQL below MLflow, during a sweep."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from commands import Command, keys, ledger
from outcome import check, undisturbed

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
EPOCHS, AWAY_S = 150, 20.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """An `mlflow server` on a free port."""

    def __init__(self, folder: Path):
        self._folder, self._port = folder, free_port()
        self.uri = f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        words = ["-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self._port), "--workers", "1"]
        words += ["--backend-store-uri", f"sqlite:///{self._folder / 'server.db'}"]
        self._process = subprocess.Popen(
            [sys.executable, *words],
            cwd=self._folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + 120
        while not self._answers():
            assert time.monotonic() < deadline
            time.sleep(0.2)

    def _answers(self) -> bool:
        try:
            return urllib.request.urlopen(f"{self.uri}/health", timeout=2).status == 200
        except OSError:
            return False

    def stop(self) -> None:
        """Sends SIGKILL."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


@pytest.fixture
def mlflow_server(tmp_path) -> Iterator[Server]:
    server = Server(tmp_path)
    server.start()
    yield server
    with contextlib.suppress(ProcessLookupError):
        server.stop()


class PostgreSQL:
    """A PostgreSQL server in a temporary folder, on a free port of 127.0.0.1; root runs it as another user."""

    def __init__(self, folder: Path, programs: Path):
        self._folder, self._programs, self._port = folder, programs, free_port()
        # PostgreSQL does not run as root.
        self._user = "nobody" if os.geteuid() == 0 else None
        if self._user:
            shutil.chown(folder, self._user)
        self._call("initdb", "--auth=trust", "--username=mlflow", "--no-sync", str(folder / "data"))
        self.uri = f"postgresql+psycopg://mlflow@127.0.0.1:{self._port}/postgres"

    def _call(self, program: str, *arguments: str) -> None:
        words = [str(self._programs / program), *arguments]
        subprocess.run(words, check=True, user=self._user, cwd=self._folder, stdout=subprocess.DEVNULL)

    def _control(self, *arguments: str) -> None:
        self._call("pg_ctl", "--wait", f"--pgdata={self._folder / 'data'}", *arguments)

    def start(self) -> None:
        options = f"-p {self._port} -c listen_addresses=127.0.0.1 -k {self._folder}"
        log = str(self._folder / "log")
        self._call(
            "pg_ctl", "start", "--wait", f"--pgdata={self._folder / 'data'}", f"--options={options}", f"--log={log}"
        )

    def stop(self) -> None:
        """Stops the server at once and closes all connections."""
        self._control("stop", "--mode=immediate")


def postgresql_programs() -> Path | None:
    """The folder of PostgreSQL's programs; None without them or psycopg. Debian's programs are not on the PATH."""
    found = shutil.which("pg_ctl") or next(map(str, Path("/usr/lib/postgresql").glob("*/bin/pg_ctl")), None)
    return None if found is None or find_spec("psycopg") is None else Path(found).resolve().parent


@pytest.fixture
def postgresql() -> Iterator[PostgreSQL]:
    """A running server; skips the test without PostgreSQL."""
    programs = postgresql_programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed")
    # Other users cannot read pytest's folders.
    with tempfile.TemporaryDirectory(prefix="postgresql-") as folder:
        server = PostgreSQL(Path(folder), programs)
        server.start()
        yield server
        with contextlib.suppress(subprocess.CalledProcessError):  # already stopped
            server.stop()


@pytest.mark.parametrize("kind", ["mlflow_server", "postgresql"])
def test_a_server_that_is_away_for_a_while_lacks_nothing(kind, request, tmp_path):
    """Members end while the server is away, and tracking catches up when it is back."""
    server, storage = request.getfixturevalue(kind), tmp_path / "runs"
    arguments = ("--storage", storage, "--set", f"epochs={EPOCHS}", "--max-concurrent", "2")
    command = Command(*arguments, "--tracking-uri", server.uri, cwd=tmp_path).until(lambda: ledger(storage))
    server.stop()
    before, back = len(keys(ledger(storage))), time.monotonic() + AWAY_S
    command.until(lambda: time.monotonic() > back and len(keys(ledger(storage))) > before)
    server.start()
    code, output = command.end()
    assert code == 0, output
    assert "MLflow is incomplete" not in output
    check(storage, undisturbed(EPOCHS), server.uri)
