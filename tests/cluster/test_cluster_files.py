"""Checks the cluster files and the commands of docs/cluster.md without a cluster."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import boto3
import machines
import pytest
import yaml
from moto import mock_aws
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from ray.autoscaler._private.util import prepare_config, validate_config

from sweeps.on_ray.autoscaling import most

ROOT = Path(__file__).parents[2]
AWS, ONPREM = "cluster.yaml", "cluster.onprem.yaml"
GUIDE = (ROOT / "docs" / "cluster.md").read_text()


def read(name: str) -> dict[str, Any]:
    return yaml.safe_load((ROOT / name).read_text())


def commands(config: dict[str, Any]) -> list[str]:
    return [line for key, lines in sorted(config.items()) if key.endswith("_commands") for line in lines]


@pytest.mark.parametrize("name", [AWS, ONPREM])
def test_rays_schema_is_met(name):
    validate_config(prepare_config(read(name)))
    with pytest.raises(Exception, match="no_such_field"):
        validate_config(prepare_config(read(name) | {"no_such_field": 1}))


@pytest.mark.parametrize("name", [AWS, ONPREM])
def test_versions_come_from_constraints_and_nowhere_else(name):
    config = read(name)
    installs = [line for line in commands(config) if "pip install" in line]
    assert len(installs) == 1
    assert "--constraint constraints.txt --editable '.[cluster]'" in installs[0]
    assert not re.search(r"[=~<>]=\s*\d", "\n".join(commands(config)))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = re.search(r"PYTHON=python(3\.\d+)", "\n".join(commands(config)))
    assert named is None or SpecifierSet(project["requires-python"]).contains(named[1])
    pinned = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split())
    for text in project["optional-dependencies"]["cluster"]:
        requirement = Requirement(text)
        assert requirement.specifier.contains(pinned[requirement.name]), text


def test_both_kinds_of_cluster_are_set_up_alike():
    aws, onprem = read(AWS), read(ONPREM)
    for key in ("file_mounts", "rsync_exclude"):
        assert aws[key] == onprem[key]
    own = [line for line in aws["setup_commands"] if "apt-get" not in line]
    assert own == onprem["setup_commands"]


@pytest.mark.parametrize("name", [AWS, ONPREM])
def test_nobody_else_can_use_it(name):
    config = read(name)
    assert "RAY_AUTH_MODE=token" in config["initialization_commands"][0]
    assert any("auth_token" in path for path in config["file_mounts"])
    (head,) = [line for line in config["head_start_ray_commands"] if "ray start" in line]
    assert "--dashboard-host=127.0.0.1" in head
    assert "0.0.0.0" not in (ROOT / name).read_text()


def test_data_sets_are_fetched_by_what_the_file_says(tmp_path):
    (line,) = [line for line in commands(read(AWS)) if "trainables.data" in line]
    words = line.replace(". ~/.vae-sweeps.env && cd ~/vae-sweeps && python", sys.executable)
    environment = {"DATA": str(tmp_path), "DATASETS": "digits nosuch", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(["bash", "-c", words], env=environment, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode != 0
    assert "unknown" in done.stderr
    assert "'nosuch'" in done.stderr


def test_the_aws_file_starts_spot_gpus_behind_its_own_group_and_a_head_on_demand(monkeypatch, tmp_path):
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
    from ray.autoscaler._private.commands import _bootstrap_config

    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    config = read(AWS)
    region = config["provider"]["region"]
    with mock_aws():
        ec2: Any = boto3.client("ec2", region_name=region)
        iam: Any = boto3.client("iam", region_name=region)
        network = ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
        group = ec2.create_security_group(GroupName="own", Description="own", VpcId=network)["GroupId"]
        iam.create_instance_profile(InstanceProfileName="vae-sweeps")
        groups = {found["GroupId"] for found in ec2.describe_security_groups()["SecurityGroups"]}
        for node in config["available_node_types"].values():
            node["node_config"]["SecurityGroupIds"] = [group]
        full = _bootstrap_config(prepare_config(config), no_config_cache=True)
        assert {found["GroupId"] for found in ec2.describe_security_groups()["SecurityGroups"]} == groups
        provider = AWSNodeProvider(full["provider"], full["cluster_name"])
        for kind, node in full["available_node_types"].items():
            provider.create_node(node["node_config"], {"kind": kind}, 1)
        started = {
            next(tag["Value"] for tag in instance["Tags"] if tag["Key"] == "kind"): instance
            for reservation in ec2.describe_instances()["Reservations"]
            for instance in reservation["Instances"]
        }
    assert set(started) == {"head", "gpu", "gpus"}
    assert {kind: instance.get("InstanceLifecycle") for kind, instance in started.items()} == {
        "head": None,
        "gpu": "spot",
        "gpus": "spot",
    }
    for instance in started.values():
        assert [found["GroupId"] for found in instance["SecurityGroups"]] == [group]
        assert instance["IamInstanceProfile"]["Arn"].endswith("/vae-sweeps")
    assert most(full, "GPU") == 4 * 4 + 12 * 1  # at most 16 nodes, with the GPUs that Ray detected
    types = full["available_node_types"]
    assert {types[kind]["min_workers"] for kind in ("gpu", "gpus")} == {0}
    assert most({**full, "max_workers": 0}, "CPU") == 0  # nothing is trained on the head


def test_the_guides_kubernetes_manifest_is_a_ray_job_of_our_version():
    (text,) = re.findall(r"```yaml\n(.*?)```", GUIDE, flags=re.DOTALL)
    job = yaml.safe_load(text)
    pinned = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split())
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster["rayVersion"] == pinned["ray"]
    workers = cluster["workerGroupSpecs"][0]
    assert workers["minReplicas"] == workers["replicas"] == workers["maxReplicas"]
    for group in (cluster["headGroupSpec"], workers):
        for container in group["template"]["spec"]["containers"]:
            assert container["image"].endswith(f":{pinned['ray']}")


def test_every_option_of_a_run_in_the_guide_exists():
    help_ = subprocess.run(
        [sys.executable, "-m", "sweeps.run", "--help"],
        capture_output=True,
        text=True,
        check=True,
        env={"COLUMNS": "200"},
    ).stdout
    lines = re.sub(r"\\?\n\s+--", " --", GUIDE).splitlines()
    runs = [line for line in lines if "sweeps.run " in line or "sweeps/run.py --" in line]
    options = {option for line in runs for option in re.findall(r"--[a-z-]+", re.split(r"sweeps[./]run", line)[1])}
    assert {"--address", "--device", "--storage", "--tracking-uri"} <= options
    assert all(option in help_ for option in options - {"--"}), options


def test_a_checkout_below_tmp_is_the_reason_why_no_machines_are_made(monkeypatch):
    monkeypatch.setattr(machines, "ROOT", Path("/tmp/checkout"))
    assert "/tmp/checkout lies below /tmp" in str(machines.missing())
    monkeypatch.setattr(machines, "ROOT", Path("/home/checkout"))
    assert "lies below /tmp" not in str(machines.missing())
