"""Runs a cluster on this machine: a head that trains nothing, and a node that standard input starts and kills.

It is a separate process because Ray reads its token at import.
"""

import sys

from ray.cluster_utils import Cluster

SMALL = {"object_store_memory": 2**27}

if __name__ == "__main__":
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **SMALL})
    print(cluster.address, flush=True)
    node = None
    for line in sys.stdin:
        if line.startswith("kill"):
            cluster.remove_node(node, allow_graceful=False)  # kill -9 of its raylet
            print("killed", flush=True)
        else:
            node = cluster.add_node(num_cpus=int(line), **SMALL)
            print(node.all_processes["raylet"][0].process.pid, flush=True)
    cluster.shutdown()
