"""Compares runs on clusters of several nodes, some of them interrupted, with a run on one machine."""

import contextlib
import json
import shlex
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml
from machines import ROOT, SHARED, Lab, Machine, missing, until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1000),
    pytest.mark.skipif(missing() is not None, reason=f"no machines here: {missing()}"),
]

HEAD = "192.0.2.10"
NODES = {"first": HEAD, "second": "192.0.2.11"}
TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0123456789abcdef" * 4, "OMP_NUM_THREADS": "1"}
TRAINED = """
import json, ray
from ray._private.state import actors
ray.init("auto", log_to_driver=False)
address = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes()}
trials = [actor for actor in actors().values() if actor["ActorClassName"] == "ImplicitFunc"]
print(json.dumps([address.get(trial["Address"]["NodeID"]) for trial in trials]))
"""
# A cluster without nodes; Ray's autoscaler may start two, which are processes instead of machines.
FAKE = "f" * 51 + "00000"
AUTOSCALED = {
    "cluster_name": "fake",
    "provider": {
        "type": "fake_multinode",
        "head_node_id": FAKE,
        "launch_multiple": True,
        "disable_node_updaters": True,
    },
    "max_workers": 2,
    "upscaling_speed": 1.0,
    "idle_timeout_minutes": 5,
    "head_node_type": "ray.head.default",
    "available_node_types": {
        "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
        "small": {"resources": {"CPU": 1}, "node_config": {}, "min_workers": 0, "max_workers": 2},
    },
    **{name: {} for name in ("auth", "docker", "file_mounts")},
    **{name: [] for name in ("cluster_synced_files", "rsync_exclude", "rsync_filter", "initialization_commands")},
    **{f"{whose}setup_commands": [] for whose in ("", "head_", "worker_")},
    **{f"{whose}_start_ray_commands": [] for whose in ("head", "worker")},
    "file_mounts_sync_continuously": False,
}
FAKED = f"AUTOSCALER_UPDATE_INTERVAL_S=1 RAY_FAKE_CLUSTER=1 RAY_enable_autoscaler_v2=1 RAY_CLOUD_INSTANCE_ID={FAKE}"


@pytest.fixture
def lab(tmp_path) -> Iterator[Lab]:
    (tmp_path / "shared").mkdir()
    with Lab(tmp_path / "machines", tmp_path / "shared") as made:
        yield made


def do(machine: Machine, line: str) -> str:
    """Runs a command in the checkout, asserts that it succeeds, and returns its output."""
    done = machine.run(f"cd {ROOT} && {line}", TOKEN)
    assert done.returncode == 0, done.stdout
    return done.stdout


def head(lab: Lab) -> Machine:
    """Starts the head of a cluster, which trains nothing."""
    made = lab.machine("head", HEAD, checkout=True)
    do(made, "ray start --head --port=6379 --num-cpus=0 --include-dashboard=false")
    return made


def join(lab: Lab, name: str, address: str) -> Machine:
    """Starts a node of the cluster, with one CPU."""
    made = lab.machine(name, address, checkout=True)
    do(made, f"ray start --address={HEAD}:6379 --num-cpus=1")
    return made


def run(storage: str, *arguments: str, epochs: int) -> str:
    sweep = f"quickstart --only estimators --set epochs={epochs}"
    return f"python -m sweeps.run {sweep} --storage {SHARED}/{storage} {' '.join(arguments)}"


def trained_on(machine: Machine) -> set[str]:
    """The addresses of the nodes that have trained cohorts."""
    return set(json.loads(do(machine, f"python -c {shlex.quote(TRAINED)}").splitlines()[-1]))


def results(folder: Path) -> pd.DataFrame:
    """The results by member, without times."""
    table = pd.read_parquet(folder / "quickstart" / "results.parquet").set_index("key").sort_index()
    return table[["status", "epochs", "metrics.elbo", "metrics.bits_per_dim"]]


def test_two_nodes_share_the_work_and_give_what_one_machine_gives(lab):
    driver = head(lab)
    nodes = {join(lab, "one", "192.0.2.11").address, join(lab, "two", "192.0.2.12").address}
    do(driver, run("cluster", "--address", "auto", epochs=2))
    assert trained_on(driver) == nodes
    do(lab.laptop, run("alone", epochs=2))
    assert len(results(lab.shared / "alone")) == 20
    pd.testing.assert_frame_equal(results(lab.shared / "cluster"), results(lab.shared / "alone"), rtol=1e-6)


def test_a_node_that_is_lost_gives_its_work_back_and_one_that_comes_gets_some(lab):
    driver = head(lab)
    stays, goes = join(lab, "stays", "192.0.2.11"), join(lab, "goes", "192.0.2.12")
    line = f"cd {ROOT} && {run('cluster', '--address', 'auto', epochs=60)}"
    words = driver.command(line, TOKEN)
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        until(lambda: trained_on(driver) == {stays.address, goes.address})
        goes.cut()
        comes = join(lab, "comes", "192.0.2.13")
        output, _ = process.communicate(timeout=500)
    finally:
        process.kill()
    assert process.returncode == 0, output
    assert "20 of 20 members done, 0 failed" in output
    assert trained_on(driver) == {stays.address, goes.address, comes.address}
    do(lab.laptop, run("alone", epochs=60))
    pd.testing.assert_frame_equal(results(lab.shared / "cluster"), results(lab.shared / "alone"), rtol=1e-6)


@pytest.mark.parametrize("seconds", [30, 600], ids=["for half a minute", "to the end of the run"])
def test_a_node_that_is_cut_off_the_network_costs_no_member(lab, seconds):
    driver = head(lab)
    stays, away = join(lab, "stays", "192.0.2.11"), join(lab, "away", "192.0.2.12")
    line = f"cd {ROOT} && {run('cluster', '--address', 'auto', epochs=60)}"
    words = driver.command(line, TOKEN)
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        until(lambda: trained_on(driver) == {stays.address, away.address})
        lab.unplug(away)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
        lab.plug(away)
        output, _ = process.communicate(timeout=500)
    finally:
        process.kill()
    assert process.returncode == 0, output
    assert "20 of 20 members done, 0 failed, 20 trained now" in output
    assert "Traceback" not in output
    time.sleep(20)  # whoever comes back must not write
    files = list((lab.shared / "cluster" / "quickstart" / "ledger").iterdir())
    keys = [key for file in files for key in pq.read_table(file)["key"].to_pylist()]
    assert len(keys) == len(set(keys)) == 20
    do(lab.laptop, run("alone", epochs=60))
    pd.testing.assert_frame_equal(results(lab.shared / "cluster"), results(lab.shared / "alone"), rtol=1e-6)


def test_a_cluster_without_nodes_gets_them_when_there_is_work(lab):
    (lab.laptop.home / "ray_bootstrap_config.yaml").write_text(yaml.safe_dump(AUTOSCALED))  # as `ray up` does
    # Ray's wheel lacks the defaults of this provider. Files added to packages disappear with the machine.
    defaults = "$(python -c 'import ray; print(ray.__path__[0])')/autoscaler/_private/fake_multi_node/example.yaml"
    do(lab.laptop, f"cp ~/ray_bootstrap_config.yaml {defaults}")
    do(
        lab.laptop,
        f"{FAKED} RAY_OVERRIDE_NODE_ID_FOR_TESTING={FAKE} ray start --head --num-cpus=0 --include-dashboard=false "
        "--autoscaling-config=~/ray_bootstrap_config.yaml",
    )
    output = do(lab.laptop, run("cluster", "--address", "auto", epochs=2))
    assert "20 of 20 members done, 0 failed" in output
    nodes = do(lab.laptop, 'python -c \'import ray; ray.init("auto"); print(len(ray.nodes()), "nodes")\'')
    assert "3 nodes" in nodes


def test_slurms_symmetric_run_trains_and_ends_on_all_nodes(lab):
    machines = [lab.machine(name, address, checkout=True) for name, address in NODES.items()]
    line = f"ray symmetric-run --address {HEAD}:6379 --min-nodes 2 --num-cpus 1 -- "
    words = [m.command(f"cd {ROOT} && {line}{run('cluster', '--address', 'auto', epochs=2)}", TOKEN) for m in machines]
    tasks = [subprocess.Popen(w, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for w in words]
    try:
        outputs = [task.communicate(timeout=500)[0] for task in tasks]
    finally:
        for task in tasks:
            task.kill()
    assert tasks[0].returncode == 0, outputs[0]
    assert "20 of 20 members done, 0 failed" in outputs[0]
    assert "raylet" not in "".join(machine.run("ps ax").stdout for machine in machines)


IMAGES = """
import numpy as np, sys
from pathlib import Path
from sklearn.datasets import load_digits
Path(sys.argv[1]).mkdir()
np.savez(sys.argv[1] + "/own.npz", train_images=load_digits().images.astype(np.uint8))
"""


def test_a_node_without_the_images_or_the_storage_is_named_before_anything_is_trained(lab):
    driver = head(lab)
    one, two = join(lab, "one", "192.0.2.11"), join(lab, "two", "192.0.2.12")
    for machine in (driver, one):
        do(machine, f"python -c {shlex.quote(IMAGES)} ~/data")
    line = run("cluster", "--address", "auto", "--data-dir", "~/data", "--set", "data.name=npz:own.npz", epochs=2)
    lacking = driver.run(f"cd {ROOT} && {line}", TOKEN)
    assert lacking.returncode == 2
    assert f"node {two.address} lacks data set 'npz:own.npz': " in lacking.stdout
    apart = driver.run(f"cd {ROOT} && {line.replace(str(SHARED), '~/own')}", TOKEN)
    assert apart.returncode == 2
    assert f"node {one.address} does not see --storage" in apart.stdout
    assert "Traceback" not in lacking.stdout + apart.stdout
    assert not (lab.shared / "cluster" / "quickstart" / "ledger").exists()
    do(two, f"python -c {shlex.quote(IMAGES)} ~/data")
    assert "20 of 20 members done, 0 failed" in do(driver, line)


def test_runs_that_the_cluster_cannot_do_are_refused_before_anything_is_trained(lab):
    driver = head(lab)
    stranger = TOKEN | {"RAY_AUTH_TOKEN": "f" * 64}
    unknown = driver.run(f"cd {ROOT} && {run('cluster', '--address', 'auto', epochs=2)}", stranger)
    assert unknown.returncode == 2
    assert "does not accept our token" in unknown.stdout
    assert "Traceback" not in unknown.stdout
    refused = driver.run(f"cd {ROOT} && {run('cluster', '--address', 'auto', '--device', 'cuda', epochs=2)}", TOKEN)
    assert refused.returncode == 2
    assert "Ray sees no GPU" in refused.stdout
    assert "Traceback" not in refused.stdout
    assert not (lab.shared / "cluster" / "quickstart" / "ledger").exists()
