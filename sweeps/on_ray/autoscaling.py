"""What a cluster may grow to: one that `ray up` made may have no GPU yet, and get them as soon as there is work."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from ray._private import worker

CONFIG = Path("~/ray_bootstrap_config.yaml")
"""Where `ray up` leaves its configuration, on the head."""


def largest() -> dict[str, float]:
    """The most of each resource that the connected cluster may have; empty where that is not known.

    It is known on the head of a cluster that `ray up` made.
    """
    path = CONFIG.expanduser()
    this_node: Any = worker._global_node
    elsewhere = str(this_node.gcs_address).rpartition(":")[0] != this_node.node_ip_address
    if this_node.is_head() or elsewhere or not path.exists():  # is_head: of a Ray of our own
        return {}
    config = yaml.safe_load(path.read_text())
    return {name: most(config, name) for name in ("CPU", "GPU")}


def most(config: Mapping[str, Any], resource: str) -> float:
    """The most of a resource that a cluster with this configuration may have, its head included."""
    types = dict(config["available_node_types"])
    found = types.pop(config["head_node_type"])["resources"].get(resource, 0)
    left = config["max_workers"]
    for each, count in sorted(
        ((node["resources"].get(resource, 0), node.get("max_workers", left)) for node in types.values()), reverse=True
    ):
        found += each * min(count, left)
        left -= min(count, left)
    return found
