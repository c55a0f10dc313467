"""Checks that every node of a cluster reaches what training needs: the images and the storage.

The nodes are asked before anything is trained. Nodes that come later are not asked: if one of them lacks the images,
the run stops with a line that names it.
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
"""A node may have to download data first."""


def check(data_sets: Collection[str], data_dir: Path, *, fetch: bool, device: str, storage: Storage) -> None:
    """Asks all nodes that have the device, at the same time.

    Args:
        data_sets: the names of the data sets that the nodes need.
        data_dir: where data sets lie, on every node.
        fetch: download missing data sets, once on each node.
        device: cpu or cuda.
        storage: of the sweep; every node must see a file that another one wrote there.

    Raises:
        UserError: a node lacks something; names the first one.
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
    """Writes a small file into the sweep's folder for the time of the context; its path."""
    path = f".probe-{uuid.uuid4().hex}"  # the next run removes such a file if this process is killed
    storage.write(path, b"")
    try:
        yield path
    finally:
        storage.delete(path)


def _lacking(data_sets: Collection[str], data_dir: Path, fetch: bool, place: str, name: str, mark: str) -> str | None:
    """Says what the node that this runs on lacks, or None."""
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
