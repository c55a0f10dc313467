import pytest

from sweeps.on_ray.autoscaling import most


def cluster(max_workers: int, **types: tuple[int, int]) -> dict:
    """A configuration as `ray up` writes it. types: the GPUs of a node and the largest number of nodes."""
    nodes = {name: {"resources": {"CPU": 8, "GPU": gpus}, "max_workers": n} for name, (gpus, n) in types.items()}
    head = {"head": {"resources": {"CPU": 0}, "max_workers": 0}}
    return {"head_node_type": "head", "available_node_types": head | nodes, "max_workers": max_workers}


@pytest.mark.parametrize(
    ("config", "gpus"),
    [
        (cluster(16, one=(1, 10)), 10),
        (cluster(4, one=(1, 10)), 4),
        (cluster(16, one=(1, 10), four=(4, 2)), 18),
        (cluster(5, one=(1, 10), four=(4, 2)), 11),  # larger nodes first
        (cluster(16), 0),
    ],
)
def test_no_more_nodes_than_each_type_and_the_cluster_may_have(config, gpus):
    assert most(config, "GPU") == gpus


def test_the_head_counts_and_what_nobody_says_does_not():
    config = cluster(2, one=(1, 2))
    config["available_node_types"]["head"]["resources"] = {"CPU": 4}
    assert most(config, "CPU") == 4 + 2 * 8
    assert most(config, "TPU") == 0
