"""The largest size of an autoscaling cluster: a cluster made by `ray up` may add GPUs only when there is work."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from sweeps.on_ray import private

CONFIG = Path("~/ray_bootstrap_config.yaml")
"""The file in which `ray up` leaves its configuration on the head."""


def largest() -> dict[str, float]:
    """The largest amount of each resource that the connected cluster may have; empty if unknown.

    Known only on the head of a cluster that `ray up` made.
    """
    path, node = CONFIG.expanduser(), private.this_node()
    if node.is_head or node.head != node.address or not path.exists():  # is_head: we started this Ray ourselves
        return {}
    config = yaml.safe_load(path.read_text())
    return {name: most(config, name) for name in ("CPU", "GPU")}


def most(config: Mapping[str, Any], resource: str) -> float:
    """The largest amount of a resource that a cluster with this configuration may have, including its head."""
    types = dict(config["available_node_types"])
    units = types.pop(config["head_node_type"])["resources"].get(resource, 0)
    left = config["max_workers"]
    for each, count in sorted(
        ((node["resources"].get(resource, 0), node.get("max_workers", left)) for node in types.values()), reverse=True
    ):
        units += each * min(count, left)
        left -= min(count, left)
    return units
