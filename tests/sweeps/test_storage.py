import os
import time

import pytest
from pyarrow import fs

from sweeps.errors import UserError
from sweeps.records.lock import Lock
from sweeps.records.storage import Storage, joined


def test_files_appear_whole_and_are_listed(storage):
    storage.write("a/b.parquet", b"1")
    storage.write("a/b.parquet", b"2")
    storage.write("a/c.json", b"3")
    assert storage.read("a/b.parquet") == b"2"
    assert storage.list("a", ".parquet") == ["a/b.parquet"]
    assert storage.list("nowhere", ".parquet") == []
    assert sorted(path.name for path in (storage.local_path / "a").iterdir()) == ["b.parquet", "c.json"]


def test_nothing_partial_stays_when_writing_fails(storage):
    with pytest.raises(TypeError):
        storage.write("a/b", "text, not bytes")  # pyright: ignore[reportArgumentType]
    assert list((storage.local_path / "a").iterdir()) == []


def test_a_file_in_the_way_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write to --storage") as caught:
        Storage(str(tmp_path / "file"), "small").prepare()
    assert "\n" not in str(caught.value)


def test_an_unknown_scheme_is_told():
    with pytest.raises(UserError, match="cannot be used"):
        Storage("nosuchscheme://bucket", "small")


def test_making_a_storage_creates_nothing(tmp_path):
    place = Storage(str(tmp_path / "runs"), "small")
    assert not place.exists()
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told_and_leaves_nothing_partial(storage, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(storage, "_put", full)
    with pytest.raises(UserError, match="No space left on device"):
        storage.write("a/b.parquet", b"1")
    assert list((storage.local_path / "a").iterdir()) == []


@pytest.mark.parametrize(
    ("uri", "path", "expected"),
    [
        ("s3://bucket/runs", "x", "s3://bucket/runs/x"),
        ("s3://bucket/runs/?scheme=http&region=r", "x/y", "s3://bucket/runs/x/y?scheme=http&region=r"),
        ("/a/what?", "x", "/a/what?/x"),
    ],
)
def test_options_of_a_uri_stay_behind_its_path(uri, path, expected):
    assert joined(uri, path) == expected


def test_the_full_uri_leads_to_the_same_folder(tmp_path):
    options = "endpoint_override=127.0.0.1:1&scheme=http&region=us-east-1"
    far = Storage(f"s3://bucket/runs?{options}", "small")
    assert far.full_uri == f"s3://bucket/runs/small?{options}"
    system, root = fs.FileSystem.from_uri(joined(far.full_uri, "checkpoints"))
    assert root == "bucket/runs/small/checkpoints"
    assert system == far._base
    near = Storage(f"file://{tmp_path}", "small")
    assert near.full_uri == str(tmp_path / "small")


@pytest.mark.parametrize(
    "uri",
    [
        "s3://id:SECRET@bucket/runs",
        "s3://id:SEC/RET@bucket/runs",
        "S3://SECRET@bucket/runs",
        "abfs://container:SECRET@account.dfs.core.windows.net/runs",
        "abfs://container/runs?tenant_id=a&client_secret=SECRET",
        "hdfs://somebody:SECRET@host:8020/runs",
        "nosuch://somebody:SECRET@host/runs",
        "s3://bucket?endpoint_override=http://u:SECRET@h",
        "s3://bucket?endpoint_override=http%3A%2F%2Fu%3ASECRET%40h",
        "s3://bucket?endpoint_override=http://SECRET@h",
    ],
)
def test_credentials_in_a_uri_are_refused_and_not_repeated(uri):
    with pytest.raises(UserError, match="AWS_SECRET_ACCESS_KEY") as caught:
        Storage(uri, "small")
    assert "SEC" not in str(caught.value).replace("AWS_SECRET_ACCESS_KEY", "")


@pytest.mark.parametrize("uri", ["gs://anonymous@bucket/runs", "abfs://container@account.dfs.core.windows.net/runs"])
def test_names_in_a_uri_are_no_credentials(uri):
    assert Storage(uri, "small").full_uri.endswith("/runs/small")


LEFT = ("ledger/a.parquet.1f.partial", "checkpoints/cohort/members.safetensors.17.partial", "cohorts/c.json.2e.partial")
SHARED = ("results.parquet.3d.partial", "report/index.html.4c.partial", ".probe-5b")
KEPT = ("ledger/a.parquet", "checkpoints/cohort/members.safetensors", "report/index.html")


@pytest.mark.parametrize(("age_s", "stay"), [(0, {*SHARED, *KEPT}), (4000, {*KEPT})])
def test_who_takes_the_lock_deletes_what_was_left_half_written_and_nothing_that_others_may_be_writing(
    storage, age_s, stay
):
    for path in (*LEFT, *SHARED, *KEPT):
        storage.write(path, b"content")
        os.utime(storage.local_path / path, (time.time() - age_s,) * 2)
    with Lock(storage):
        found = {path.relative_to(storage.local_path).as_posix() for path in storage.local_path.rglob("*")}
        assert {path for path in found if (storage.local_path / path).is_file()} == {*stay, "lock.json"}


def test_the_probe_of_a_folder_may_be_deleted_by_somebody_else(storage, monkeypatch):
    write = storage.write

    def write_and_lose(path, content):
        write(path, content)
        (storage.local_path / path).unlink()

    monkeypatch.setattr(storage, "write", write_and_lose)
    storage.prepare()
