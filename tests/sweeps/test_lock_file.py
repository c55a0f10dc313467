"""The lock on an object store: conditional writes, on a real S3 server."""

import json
from concurrent.futures import ThreadPoolExecutor

import boto3
import pytest
from moto.server import ThreadedMotoServer

from sweeps.errors import UserError
from sweeps.records import lock_file as files
from sweeps.records.lock import Lock, LockLostError
from sweeps.records.lock_file import FILE, ConditionalFile, PlainFile, lock_file
from sweeps.records.storage import Storage


@pytest.fixture(scope="module")
def server():
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield server.get_host_and_port()[1]
    server.stop()


@pytest.fixture
def far(server, monkeypatch, request) -> Storage:
    """A sweep's folder in a bucket."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    bucket = f"b{abs(hash(request.node.name))}"
    client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{server}", region_name="us-east-1")
    client.create_bucket(Bucket=bucket)
    return Storage(f"s3://{bucket}/runs?endpoint_override=127.0.0.1:{server}&scheme=http&region=us-east-1", "small")


def test_a_file_is_created_and_replaced_by_one_alone(far):
    one, two = lock_file(far), lock_file(far)
    assert isinstance(one, ConditionalFile)
    first = one.create(b"1")
    assert first is not None
    assert two.create(b"2") is None
    seen = two.read()
    assert seen == first
    assert two.replace(seen, b"2") is not None
    assert one.replace(first, b"3") is None
    one.refresh(first)
    assert far.read(FILE) == b"2"
    assert 0 <= two.age_s() < 60
    two.delete()
    assert one.read() is None
    assert one.replace(first, b"3") is None
    assert [path for path in far.list("", "") if "probe" in path] == []


def test_of_many_drivers_that_come_at_once_one_gets_the_lock(far):
    with ThreadPoolExecutor(8) as pool:
        created = list(pool.map(lambda index: lock_file(far).create(b"%d" % index), range(8)))
    assert [version.content for version in created if version is not None] == [far.read(FILE)]


def test_of_many_drivers_that_take_over_at_once_one_gets_the_lock(far):
    stale = lock_file(far).create(b"stale")
    with ThreadPoolExecutor(8) as pool:
        replaced = list(pool.map(lambda index: lock_file(far).replace(stale, b"%d" % index), range(8)))
    assert [version.content for version in replaced if version is not None] == [far.read(FILE)]


def test_a_second_driver_is_refused_and_who_was_taken_over_writes_nothing(far):
    with Lock(far, beat_every_s=0.05):
        with pytest.raises(UserError, match="is being run by host"), Lock(Storage(far.uri, far.name)):
            pass
        far.write("ledger/mine", b"1")
        other = json.loads(far.read(FILE)) | {"token": "another"}
        lock_file(far).replace(lock_file(far).read(), json.dumps(other).encode())
        with pytest.raises(LockLostError):
            far.write("ledger/late", b"2")
    assert far.list("ledger", "") == ["ledger/mine"]
    assert json.loads(far.read(FILE))["token"] == "another"


def test_a_lost_answer_does_not_lose_the_lock(far, monkeypatch):
    file = lock_file(far)
    own = file.create(b"own")
    assert file.create(b"own") == own  # like a client that repeats a request after a lost answer


def test_a_server_without_conditions_gets_the_pause(far, monkeypatch):
    monkeypatch.setattr(files, "_store", lambda storage: pytest.importorskip("obstore").store.S3Store("b", region="r"))
    monkeypatch.setattr("obstore.store.S3Store.put", refused, raising=False)
    assert isinstance(lock_file(far, pause_s=0.0), PlainFile)


def refused(*_, **__):
    from obstore.exceptions import NotSupportedError

    raise NotSupportedError("conditional writes are not implemented")
