import http.server
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import threading
from collections import namedtuple

import psutil
import pytest

from sweeps import doctor
from sweeps.findings import ok, safely

LINE = re.compile(r"(ok|note|problem) +[a-z]+: .+")


def levels(output: str) -> dict[str, str]:
    """The level of each check; asserts that every line is one check."""
    assert all(LINE.fullmatch(line) for line in output.splitlines()), output
    return {line[8:].partition(":")[0]: line.split()[0] for line in output.splitlines()}


def only(findings):
    (finding,) = findings
    return finding


def test_a_sound_machine_is_exit_0_and_nothing_is_left_behind(command, tmp_path):
    code, out, err = command(doctor.doctor)
    assert (code, err) == (0, "")
    found = levels(out)
    checks = {"python", "packages", "environment", "torch", "memory", "storage", "disk", "tracking", "studies", "data"}
    assert found.keys() == checks
    assert "problem" not in found.values()
    assert "digits is built in" in out
    assert "mnist is missing" in out
    assert list(tmp_path.iterdir()) == []


def test_one_problem_is_exit_1_with_what_to_do(command, tmp_path):
    (tmp_path / "FILE").write_text("in the way")
    code, out, _ = command(doctor.doctor, "--storage", "FILE")
    assert code == 1
    assert levels(out)["storage"] == "problem"
    assert "choose another folder with --storage" in out


def test_an_impossible_device_is_exit_2(command):
    code, _, err = command(doctor.doctor, "--device", "tpu")
    assert code == 2
    assert "--device" in err


def test_a_check_that_raises_is_a_problem_and_the_others_go_on(command, monkeypatch):
    def broken():
        raise RuntimeError("no\nidea")

    monkeypatch.setattr(doctor, "memory", broken)
    code, out, _ = command(doctor.doctor)
    assert code == 1
    found = levels(out)
    assert found["memory"] == "problem"
    assert "digits is built in" in out
    assert "RuntimeError: no idea" in out


def test_what_was_found_before_a_check_raised_is_kept():
    def broken():
        yield ok("a", "fine")
        raise KeyError("b")

    assert [finding.level for finding in safely("a", broken)] == ["ok", "problem"]


def test_packages_are_compared_with_what_the_project_requires(monkeypatch):
    version = importlib.metadata.version

    def installed(name):
        if name == "optuna":
            raise importlib.metadata.PackageNotFoundError(name)
        return {"pandas": "1.5.3", "numpy": "99.0.0rc1"}.get(name) or version(name)

    monkeypatch.setattr(importlib.metadata, "version", installed)
    python, packages = doctor.python_and_packages()
    assert python.level == "ok"
    assert packages.level == "problem"
    assert re.fullmatch(r"optuna is missing \(>=5 needed\), pandas 1.5.3 is installed \(>=2.2 needed\)", packages.found)


def test_packages_that_lack_what_they_require_are_named(monkeypatch, tmp_path):
    info = tmp_path / "needy-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: needy\nVersion: 1.0\nRequires-Dist: nowhere>=3\n")
    assert only(doctor.environment()).level == "ok"
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found = only(doctor.environment())
    assert (found.level, found.found) == ("note", "needy 1.0 requires nowhere, which is not installed.")


def test_an_old_python_is_a_problem(monkeypatch):
    monkeypatch.setattr("platform.python_version", lambda: "3.9.1")
    python, _ = doctor.python_and_packages()
    assert (python.level, python.found) == ("problem", "3.9.1 is installed, >=3.11 is needed")


def test_a_gpu_that_is_asked_for_must_be_there(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert only(doctor.torch_and_gpus("cuda")).level == "problem"
    assert only(doctor.torch_and_gpus("auto")).level == "ok"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "A GPU")
    found = only(doctor.torch_and_gpus("cuda"))
    assert found.level == "ok"
    assert "A GPU" in found.found


def test_little_memory_and_a_full_disk_are_problems(monkeypatch, tmp_path):
    assert only(doctor.memory()).level == "ok"
    memory = namedtuple("memory", "available")
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory(doctor.GIB // 2))
    assert (only(doctor.memory()).level, only(doctor.memory()).found) == ("problem", "0.5 GiB free")
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(doctor.GIB))
    storage, disk = doctor.storage_place(str(tmp_path / "runs"))
    assert (storage.level, disk.level) == ("ok", "problem")


def test_a_storage_that_is_no_folder_is_written_to():
    assert only(doctor.storage_place("mock:///bucket")).level == "ok"
    assert only(safely("storage", lambda: doctor.storage_place("nosuch://bucket"))).level == "problem"


def test_a_database_must_be_one(tmp_path):
    path = tmp_path / "mlflow.db"
    uri = f"sqlite:///{path}"
    assert "will be made" in only(doctor.tracking(uri)).found
    path.write_text("this is no database, and long enough to be read as one" * 100)
    found = only(doctor.tracking(uri))
    assert found.level == "problem"
    assert "not a database" in found.found


@pytest.fixture
def server():
    """Starts servers that answer every request with a given status; returns their addresses."""
    servers = []

    def start(status: int) -> str:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(status if self.path == "/health" else 500)
                self.end_headers()
                self.wfile.write(b"OK")

            def log_message(self, *_):
                pass

        servers.append(http.server.HTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"127.0.0.1:{servers[-1].server_port}"

    yield start
    for one in servers:
        one.shutdown()
        one.server_close()


def test_a_server_must_answer(server):
    assert only(doctor.tracking(f"http://{server(200)}/")).level == "ok"
    refused = only(doctor.tracking(f"http://{server(401)}"))
    assert refused.level == "problem"
    assert "MLFLOW_TRACKING_PASSWORD" in refused.advice
    assert only(doctor.tracking("http://127.0.0.1:9")).level == "problem"


def test_a_password_in_an_address_is_not_printed(server, command):
    for address in (server(200), "127.0.0.1:9"):
        _, out, err = command(doctor.doctor, "--tracking-uri", f"http://me:hunter2@{address}")
        assert address in out
        assert "hunter2" not in out + err


def test_data_sets_are_found_by_their_files(tmp_path):
    from trainables.data.mnist import MD5

    def mnist():
        return next(finding for finding in doctor.data_sets(tmp_path) if finding.found.startswith("mnist"))

    assert mnist().level == "note"
    assert "--download" in mnist().advice
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in MD5:
        (raw / name).write_bytes(b"")
    assert mnist().level == "ok"


def test_nodes_must_have_our_versions_and_our_time():
    from sweeps.on_ray.nodes import Node, compared

    ours = {"python": "3.11.7", "ray": "2.60.0"}
    assert only(compared(Node("a", ours, 0.1), ours)).level == "ok"
    other = only(compared(Node("b", ours | {"ray": "2.59.0"}, 0.1), ours))
    assert (other.level, other.found) == ("problem", "b has ray 2.59.0 (here 2.60.0)")
    late = only(compared(Node("c", ours, -75.0), ours))
    assert (late.level, late.found) == ("problem", "the clock of c is -75.0 s off")
    assert [finding.level for finding in compared(Node("d", {}, 75.0), ours)] == ["problem", "problem"]


@pytest.mark.slow
def test_ray_starts_here_on_request_and_touches_no_home(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    ended = subprocess.run(
        [sys.executable, "-m", "sweeps.doctor", "--ray"],
        cwd=tmp_path,
        env=environment | {"HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found = levels(ended.stdout)
    assert (found["ray"], found["node"]) == ("ok", "ok")
    assert "has the same versions and the same time" in ended.stdout
    assert list(tmp_path.rglob("*")) == [home]
    assert "Token authentication" not in ended.stderr


def test_the_number_of_nodes_is_that_of_a_cluster(command):
    code, _, err = command(doctor.doctor, "--nodes", "2")
    assert code == 2
    assert "--address" in err


MONITOR = """\
2026-11-21 05:25:16,100\tINFO updater.py:490 -- \x1b[2m(1/2)\x1b[22m export RAY_HEAD_IP=192.0.2.10; echo one
one
2026-11-21 05:25:44,251\tINFO updater.py:490 -- \x1b[2m(2/2)\x1b[22m export RAY_HEAD_IP=192.0.2.10; pip install
making it
no space left on device
2026-11-21 05:25:44,304\tINFO log_timer.py:25 -- NodeUpdater: 192.0.2.11: Setup commands failed [LogTimer=23715ms]
2026-11-21 05:25:44,305\tERR updater.py:177 -- \x1b[31mNew status: \x1b[1mupdate-failed\x1b[22m\x1b[26m\x1b[39m
Traceback (most recent call last):
2026-11-21 05:25:45,251\tINFO updater.py:490 -- ray start
2026-11-21 05:25:45,304\tINFO log_timer.py:25 -- NodeUpdater: 192.0.2.12: Ray start commands succeeded [LogTimer=2ms]
2026-11-21 05:25:45,305\tINFO updater.py:177 -- New status: up-to-date
"""


def test_what_a_node_said_when_its_setup_failed_is_found_in_the_autoscalers_log():
    from sweeps.on_ray.nodes import failed_setups

    assert failed_setups(MONITOR) == {"192.0.2.11": "making it | no space left on device"}
    assert failed_setups("") == {}
