import pytest

from sweeps.errors import UserError
from sweeps.storage import Storage


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
