"""Whether every node of a cluster reaches what training needs: the images, and the storage.

Asked before anything is trained. Nodes that come later are not asked: one of them that lacks the images stops the run
with a line that names it.
"""

import contextlib
import uuid
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sweeps.errors import UserError
from sweeps.records.storage import Storage
from trainables.data import DataError, download, load

_ANSWER_S = 3600.0
"""A node may have to download data first."""


def check(data_sets: Collection[str], data_dir: Path, *, fetch: bool, device: str, storage: Storage) -> None:
    """Asks the nodes that have the device, all at the same time.

    Args:
        data_sets: the names of those that must be there.
        data_dir: where, on every node.
        fetch: download what is missing, once a node.
        device: cpu or cuda.
        storage: of the sweep; every node must see what another wrote there.

    Raises:
        UserError: a node lacks something; names the first one.
    """
    place = str(storage.local_path.parent) if storage.local else storage.uri
    unit = "GPU" if device == "cuda" else "CPU"
    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get(unit, 0) > 0]
    ask = ray.remote(_lacking)
    with _mark(storage) as mark:
        answers = {}
        for node in sorted(nodes, key=lambda node: node["NodeManagerAddress"]):
            where: Any = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            arguments = (sorted(data_sets), data_dir, fetch, place, storage.name, mark)
            placed = ask.options(num_cpus=0, scheduling_strategy=where)
            answers[node["NodeManagerAddress"]] = placed.remote(*arguments)
        for name, answer in answers.items():
            if problem := ray.get(answer, timeout=_ANSWER_S):
                raise UserError(f"node {name} {problem}")


@contextlib.contextmanager
def _mark(storage: Storage) -> Iterator[str]:
    """A small file in the sweep's folder, for as long as it is looked for."""
    path = f".probe-{uuid.uuid4().hex}"  # of a kind that is removed when its process was killed
    storage.write(path, b"")
    try:
        yield path
    finally:
        storage.delete(path)


def _lacking(data_sets: Collection[str], data_dir: Path, fetch: bool, place: str, name: str, mark: str) -> str | None:
    """What the node that this runs on lacks, in words."""
    try:
        Storage(place, name).read(mark)
    except FileNotFoundError:
        return f"does not see --storage {place!r}; it must be an object store, or a folder that all nodes share"
    except UserError as error:
        return str(error)
    for data in data_sets:
        try:
            (download if fetch else load)(data, data_dir)
        except DataError as error:
            return f"lacks data set {data!r}: {error}"
    return None
