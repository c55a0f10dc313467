import socket
import time

import pytest

from sweeps.errors import UserError
from sweeps.on_ray import cluster
from sweeps.on_ray.address import answering


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def test_where_nothing_listens_it_is_told_at_once(closed_port):
    began = time.monotonic()
    with pytest.raises(UserError, match=f"no Ray cluster at --address '127.0.0.1:{closed_port}': .*refused"):
        answering(f"127.0.0.1:{closed_port}")
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("address", ["nonsense", "host.invalid:6379", "127.0.0.1:99999", "127.0.0.1:port"])
def test_what_is_no_address_is_told(address):
    with pytest.raises(UserError, match="no Ray cluster at --address"):
        answering(address)


def test_rays_client_is_refused():
    with pytest.raises(UserError, match="ray submit"):
        answering("ray://127.0.0.1:10001")


def test_other_versions_are_told_in_one_line(monkeypatch):
    def init(*_: object, **__: object) -> None:
        raise RuntimeError("Version mismatch: The cluster was started with:\n    Ray: 2.59.0\n    Python: 3.12.1\n")

    monkeypatch.setattr(cluster, "answering", lambda address: address)
    monkeypatch.setattr("ray.init", init)
    resources = cluster.connected(address="127.0.0.1:6379", device="cpu", workers=1, max_concurrent=None)
    with (
        pytest.raises(UserError, match=r"Ray: 2\.59\.0 Python: 3\.12\.1; install the same versions everywhere"),
        resources,
    ):
        pass
