"""Checks that every node of a cluster has access to the images and the storage.

The check runs before training. It does not cover nodes that come later: if one of them lacks the images, the run stops
with a line that names it.
"""

import contextlib
import uuid
from collections.abc import Collection, Iterator
from pathlib import Path

from sweeps.errors import UserError
from sweeps.on_ray.placement import ask_each, nodes
from sweeps.records.storage import Storage
from trainables.data import DataError, download, load

_ANSWER_S = 3600.0
"""Seconds to wait for a node's answer; long, since the node may have to download data first."""


def check(data_sets: Collection[str], data_dir: Path, *, fetch: bool, device: str, storage: Storage) -> None:
    """Checks all nodes that have the device, at the same time.

    Args:
        data_sets: names of the data sets that the nodes need.
        data_dir: folder of the data sets on every node.
        fetch: whether each node downloads missing data sets.
        device: cpu or cuda.
        storage: storage of the sweep; every node must see a file that this process writes there.

    Raises:
        UserError: a node lacks something; the message names the first such node.
    """
    place = str(storage.local_path.parent) if storage.local else storage.uri
    fit = [node for node in nodes() if node.alive and (node.gpus if device == "cuda" else node.cpus) > 0]
    with _mark(storage) as mark:
        arguments = (sorted(data_sets), data_dir, fetch, place, storage.name, mark)
        for address, problem in ask_each(fit, _lacking, *arguments, timeout_s=_ANSWER_S).items():
            if problem is not None:
                raise UserError(f"node {address} {problem}")


@contextlib.contextmanager
def _mark(storage: Storage) -> Iterator[str]:
    """A context that writes an empty file into the sweep's folder, gives its path, and deletes it at the end."""
    path = f".probe-{uuid.uuid4().hex}"  # the next run deletes such files of killed processes
    storage.write(path, b"")
    try:
        yield path
    finally:
        storage.delete(path)


def _lacking(data_sets: Collection[str], data_dir: Path, fetch: bool, place: str, name: str, mark: str) -> str | None:
    """Tells what the current node lacks; None if nothing. Runs on the node."""
    try:
        Storage(place, name).read(mark)
    except FileNotFoundError:
        return f"does not see --storage {place!r}; use an object store, or a folder that all nodes share"
    except UserError as error:
        return str(error)
    for data in data_sets:
        try:
            (download if fetch else load)(data, data_dir)
        except DataError as error:
            return f"lacks data set {data!r}: {error}"
    return None
