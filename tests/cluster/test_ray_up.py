"""All steps of a user with a few machines: `ray up`, runs on the cluster in every documented form, `ray down`.

Ray sees the simulated machines (`machines.py`) as real ones. `cluster.onprem.yaml` is used with other addresses only.
"""

import json
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
import yaml
from machines import ROOT, SHARED, VENV, Lab, Machine, missing, until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1000),
    pytest.mark.skipif(missing() is not None, reason=f"no machines here: {missing()}"),
]

NODES = {"head": "192.0.2.10", "worker": "192.0.2.11"}
SMALL = "quickstart --only estimators --set epochs=2"
DASHBOARD = "http://127.0.0.1:8265"


@dataclass(frozen=True)
class Cluster:
    laptop: Machine
    nodes: dict[str, Machine]
    shared: Path

    def on_laptop(self, line: str) -> str:
        """Runs a command in the laptop's checkout, asserts that it succeeds, and returns its output."""
        done = self.laptop.run(f"cd {ROOT} && export RAY_AUTH_MODE=token && {line}")
        assert done.returncode == 0, done.stdout
        return done.stdout

    def on_head(self, line: str) -> str:
        return self.on_laptop(f"ray exec ~/cluster.yaml {shlex.quote(line)}")

    def results(self, storage: str) -> pd.DataFrame:
        return pd.read_parquet(self.shared / storage / "quickstart" / "results.parquet")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[Cluster]:
    shared = tmp_path_factory.mktemp("shared")
    with Lab(tmp_path_factory.mktemp("machines"), shared) as lab:
        laptop = lab.laptop
        nodes = {name: lab.machine(name, address) for name, address in NODES.items()}
        config = yaml.safe_load((ROOT / "cluster.onprem.yaml").read_text())
        config["provider"] |= {"head_ip": NODES["head"], "worker_ips": [NODES["worker"]]}
        config["auth"]["ssh_user"] = "root"
        (laptop.home / "cluster.yaml").write_text(yaml.safe_dump(config))
        for node in nodes.values():  # the packages are installed already, so nothing is downloaded
            (node.home / "vae-sweeps").mkdir()
            (node.home / "vae-sweeps" / ".venv").symlink_to(VENV)
        up = Cluster(laptop, nodes, shared)
        up.on_laptop("(umask 077; ray get-auth-token --generate)")
        up.on_laptop("ray up -y ~/cluster.yaml")
        yield up


def test_doctor_waits_for_all_nodes_and_finds_them_alike(cluster):
    found = cluster.on_head("python -m sweeps.doctor --address auto --nodes 2 --wait 100")
    lines = [line.strip() for line in found.splitlines()]
    for address in NODES.values():
        assert f"ok      node: {address} has the same versions and the same time" in lines


def test_every_node_has_this_checkout_and_nothing_private(cluster):
    for node in cluster.nodes.values():
        copy = node.home / "vae-sweeps"
        for name in ("constraints.txt", "sweeps/run.py", "trainables/data/digits.py"):
            assert (copy / name).read_bytes() == (ROOT / name).read_bytes()
        assert not (copy / ".git").exists()
        where = node.run("cd / && python -c 'import sweeps; print(sweeps.__file__)'")
        assert where.stdout.strip() == str(Path("/srv/vae-sweeps/sweeps/__init__.py"))
        assert (node.home / ".ray" / "auth_token").stat().st_mode & 0o077 == 0


def test_ray_submit_trains_on_all_nodes_and_the_results_come_back(cluster):
    cluster.on_laptop(f"ray submit ~/cluster.yaml sweeps/run.py -- {SMALL} --address auto --storage {SHARED}/submitted")
    table = cluster.results("submitted")
    assert set(table["status"]) == {"finished"}
    assert len(table) == 20
    status = cluster.on_laptop(f"python -m sweeps.status quickstart --json --storage {SHARED}/submitted")
    assert json.loads(status)["sweep"] == "quickstart"
    count = (
        "import json, sys; actors = json.load(sys.stdin); "
        "print(len({actor['node_id'] for actor in actors if actor['class_name'] == 'ImplicitFunc'}), 'nodes trained')"
    )
    counted = cluster.on_head(f"ray list actors --format json --limit 1000 | python -c {shlex.quote(count)}")
    assert f"{len(NODES)} nodes trained" in counted


def test_a_run_in_tmux_outlives_the_laptop(cluster):
    storage = f"{SHARED}/detached"
    cluster.on_laptop(f"ray submit --tmux ~/cluster.yaml sweeps/run.py -- {SMALL} --address auto --storage {storage}")
    until((cluster.shared / "detached" / "quickstart" / "results.parquet").exists)
    assert set(cluster.results("detached")["status"]) == {"finished"}


def test_a_job_runs_through_the_tunnel_and_only_with_the_token(cluster):
    tunnel = subprocess.Popen(
        cluster.laptop.command("ray dashboard ~/cluster.yaml", {"RAY_AUTH_MODE": "token"}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until(lambda: cluster.laptop.run(f"curl --silent {DASHBOARD}/api/version").returncode == 0, 60)
        refused = cluster.laptop.run(f"RAY_AUTH_MODE=token RAY_AUTH_TOKEN=wrong ray job list --address {DASHBOARD}")
        assert refused.returncode != 0
        entry = f"python -m sweeps.run {SMALL} --address auto --storage {SHARED}/job"
        output = cluster.on_laptop(f"ray job submit --address {DASHBOARD} -- {entry}")
    finally:
        tunnel.kill()
    assert "20 of 20 members done" in output
    assert set(cluster.results("job")["status"]) == {"finished"}


def test_the_dashboard_is_reached_through_the_tunnel_alone(cluster):
    assert cluster.laptop.run(f"exec 3<>/dev/tcp/{NODES['head']}/22").returncode == 0
    assert cluster.laptop.run(f"exec 3<>/dev/tcp/{NODES['head']}/8265").returncode != 0


def test_after_ray_down_nothing_of_ray_runs(cluster):
    def at_work() -> list[str]:
        return [name for name, node in cluster.nodes.items() if "raylet" in node.run("ps ax").stdout]

    assert at_work() != []
    cluster.on_laptop("ray down -y ~/cluster.yaml")
    until(lambda: at_work() == [])  # workers end after a minute without the head
    assert at_work() == []
