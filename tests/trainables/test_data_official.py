"""CIFAR-10, SVHN and Downsampled ImageNet as small files in their original formats; downloads that work or fail."""

import gzip
import hashlib
import io
import tarfile
import urllib.error
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torchvision.datasets as published
from pickles import planes, python2_pickle, python3_pickle
from scipy.io import savemat
from test_mnist import idx

from trainables.data import DataError, Images, download, imagenet32, load, mnist, svhn
from trainables.data import cifar10 as cifar
from trainables.data.base import DATASETS
from trainables.data.cifar10 import cifar10
from trainables.data.files import Download, FileSet, existing


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def as_images(rows: np.ndarray) -> np.ndarray:
    """The definition of the layout: 1,024 red values by rows, then green, then blue."""
    return np.stack([[row[plane * 1024 : (plane + 1) * 1024].reshape(32, 32) for plane in range(3)] for row in rows])


@pytest.fixture(autouse=True)
def forget_loaded():
    load.cache_clear()
    yield
    load.cache_clear()


# --- CIFAR-10 --------------------------------------------------------------------------------------------------------


@pytest.fixture
def cifar_rows(tmp_path, monkeypatch) -> dict[str, np.ndarray]:
    """Writes small CIFAR-10 files whose md5 sums are accepted; returns their rows by file."""
    rows = {file: planes(3, seed) for seed, file in enumerate(cifar.MD5)}
    (tmp_path / cifar.FOLDER).mkdir()
    for file, content in rows.items():
        (tmp_path / cifar.FOLDER / file).write_bytes(python2_pickle(content))
    monkeypatch.setattr(cifar, "MD5", {file: md5(python2_pickle(content)) for file, content in rows.items()})
    return rows


few_cifar = replace(cifar10, validation=4)


def test_cifar10_reads_batches_in_order(tmp_path, cifar_rows):
    images = few_cifar(tmp_path)
    training = as_images(np.concatenate([cifar_rows[f"data_batch_{number}"] for number in range(1, 6)]))
    np.testing.assert_array_equal(images.train, training[:11])
    np.testing.assert_array_equal(images.validation, training[11:])
    np.testing.assert_array_equal(images.test, as_images(cifar_rows["test_batch"]))


def test_cifar10_agrees_with_torchvision(tmp_path, cifar_rows, monkeypatch):
    sums = {file: md5((tmp_path / cifar.FOLDER / file).read_bytes()) for file in cifar_rows}
    meta = gzip.compress(b"")  # not read
    (tmp_path / cifar.FOLDER / "batches.meta").write_bytes(meta)
    monkeypatch.setattr(published.CIFAR10, "train_list", [[f, s] for f, s in sums.items() if f != "test_batch"])
    monkeypatch.setattr(published.CIFAR10, "test_list", [["test_batch", sums["test_batch"]]])
    monkeypatch.setattr(published.CIFAR10, "_load_meta", lambda self: None)
    theirs = published.CIFAR10(tmp_path).data.transpose(0, 3, 1, 2)
    ours = few_cifar(tmp_path)
    np.testing.assert_array_equal(np.concatenate([ours.train, ours.validation]), theirs)


def test_the_published_sums_and_sizes():
    sums = dict([*published.CIFAR10.train_list, *published.CIFAR10.test_list])
    assert sums == cifar.MD5
    assert {split: published.SVHN.split_list[split][1:] for split in svhn.FILES} == {
        split: [file, svhn.MD5[file]] for split, file in svhn.FILES.items()
    }
    assert mnist.MD5.items() <= dict(published.MNIST.resources).items()
    assert cifar10.validation == 5_000
    assert svhn.svhn.validation == 7_257
    assert mnist.mnist.validation == 10_000
    assert imagenet32.imagenet32.validation == 50_000


def test_cifar10_that_is_missing_in_part(tmp_path, cifar_rows):
    (tmp_path / cifar.FOLDER / "test_batch").unlink()
    with pytest.raises(
        DataError, match=r"there is no test_batch in .*add --download to the command, or in Python .*'cifar10'"
    ):
        cifar10(tmp_path)


@pytest.mark.parametrize("change", [lambda content: content[:-1], lambda content: content[:-9] + b"x" + content[-8:]])
def test_a_damaged_batch_is_named(tmp_path, cifar_rows, change):
    path = tmp_path / cifar.FOLDER / "data_batch_3"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(DataError, match=r"data_batch_3 is damaged: md5 [0-9a-f]{32}, expected [0-9a-f]{32}"):
        few_cifar(tmp_path)
    assert not (tmp_path / "arrow").exists()


def test_the_real_part_of_cifar10_is_in_color_and_in_order(real_data):
    images = load("npz:cifar10.npz", real_data)
    assert {split: len(part) for split, part in images.splits.items()} == {
        "train": 9_000,
        "validation": 1_000,
        "test": 1_000,
    }
    # The first training image is a frog on brownish ground; its published first pixel is (59, 62, 63).
    assert images.train[0, :, 0, 0].tolist() == [59, 62, 63]
    np.testing.assert_allclose(images.train.mean((0, 2, 3)), [125.3, 123.0, 113.9], atol=1)


def test_the_real_part_of_cifar10_in_its_original_format(real_data, tmp_path, monkeypatch):
    real = load("npz:cifar10.npz", real_data)
    training = np.concatenate([real.train, real.validation])
    batches = [*np.split(training.reshape(10_000, -1), 5), real.test.reshape(1_000, -1)]
    (tmp_path / cifar.FOLDER).mkdir()
    contents = dict(zip(cifar.MD5, map(python2_pickle, batches), strict=True))
    for file, content in contents.items():
        (tmp_path / cifar.FOLDER / file).write_bytes(content)
    monkeypatch.setattr(cifar, "MD5", {file: md5(content) for file, content in contents.items()})
    images = replace(cifar10, validation=1_000)(tmp_path)
    for split, part in real.splits.items():
        np.testing.assert_array_equal(images.splits[split], part)


# --- SVHN ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def svhn_images(tmp_path, monkeypatch) -> dict[str, np.ndarray]:
    """Writes small SVHN files whose md5 sums are accepted; returns their images [N, 32, 32, 3] by part."""
    images = {part: planes(count).reshape(-1, 32, 32, 3) for part, count in (("train", 6), ("test", 2))}
    for part, file in svhn.FILES.items():
        labels = np.full((len(images[part]), 1), 10, np.uint8)
        savemat(tmp_path / file, {"X": images[part].transpose(1, 2, 3, 0), "y": labels}, do_compression=True)
    monkeypatch.setattr(svhn, "MD5", {file: md5((tmp_path / file).read_bytes()) for file in svhn.MD5})
    return images


few_svhn = replace(svhn.svhn, validation=2)


def test_svhn_reads_its_files(tmp_path, svhn_images):
    images = few_svhn(tmp_path)
    np.testing.assert_array_equal(images.train, svhn_images["train"][:4].transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(images.validation, svhn_images["train"][4:].transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(images.test, svhn_images["test"].transpose(0, 3, 1, 2))


def test_svhn_agrees_with_torchvision(tmp_path, svhn_images, monkeypatch):
    lists = {part: ["", file, svhn.MD5[file]] for part, file in svhn.FILES.items()}
    monkeypatch.setattr(published.SVHN, "split_list", lists | {"extra": lists["train"]})
    np.testing.assert_array_equal(few_svhn(tmp_path).test, published.SVHN(tmp_path, split="test").data)


def test_svhn_that_is_missing_or_damaged(tmp_path, svhn_images):
    test = tmp_path / svhn.FILES["test"]
    test.write_bytes(test.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"test_32x32\.mat is damaged: md5"):
        few_svhn(tmp_path)
    test.unlink()
    with pytest.raises(DataError, match=r"there is no test_32x32\.mat in .*add --download to the command"):
        few_svhn(tmp_path)


# --- Downsampled ImageNet --------------------------------------------------------------------------------------------

SIZES = {file: 2 + number % 3 for number, file in enumerate(imagenet32.FILES)}


@pytest.fixture(params=["npz", "pickle"])
def imagenet_rows(request, tmp_path, monkeypatch) -> dict[str, np.ndarray]:
    """Writes small files of Downsampled ImageNet in one of the two formats; returns their rows by file."""
    folder = tmp_path / imagenet32.FOLDER
    folder.mkdir()
    rows = {file: planes(size, seed) for seed, (file, size) in enumerate(SIZES.items())}
    for file, content in rows.items():
        labels = np.ones(len(content), np.int64)
        if request.param == "npz":
            np.savez(folder / f"{file}.npz", data=content, labels=labels)
        else:
            (folder / file).write_bytes(python3_pickle(content, protocol=3))
    monkeypatch.setattr(
        imagenet32, "COUNTS", {"train": sum(SIZES.values()) - SIZES["val_data"], "test": SIZES["val_data"]}
    )
    return rows


few_imagenet = replace(imagenet32.imagenet32, validation=5)


def test_imagenet32_reads_batches_in_numerical_order(tmp_path, imagenet_rows):
    images = few_imagenet(tmp_path)
    # Sorted by name, batch 10 would follow batch 1.
    training = as_images(np.concatenate([imagenet_rows[f"train_data_batch_{number}"] for number in range(1, 11)]))
    np.testing.assert_array_equal(images.train, training[:-5])
    np.testing.assert_array_equal(images.validation, training[-5:])
    np.testing.assert_array_equal(images.test, as_images(imagenet_rows["val_data"]))


@pytest.mark.parametrize(("part", "by"), [("train", 1), ("train", -1), ("test", 1), ("test", -1)])
def test_imagenet32_of_another_size_is_refused(tmp_path, imagenet_rows, monkeypatch, part, by):
    counts = imagenet32.COUNTS | {part: imagenet32.COUNTS[part] + by}
    monkeypatch.setattr(imagenet32, "COUNTS", counts)
    actual, expected = counts[part] - by, counts[part]
    with pytest.raises(DataError, match=f"hold {actual} images, Downsampled ImageNet has {expected}"):
        few_imagenet(tmp_path)


def test_imagenet32_that_is_missing_says_which_files_go_where(tmp_path):
    with pytest.raises(DataError) as error:
        imagenet32.imagenet32(tmp_path)
    for part in ("train_data_batch_1.npz to train_data_batch_10.npz", "val_data.npz", str(tmp_path / "imagenet32")):
        assert part in str(error.value)
    assert "--download" not in str(error.value)


def test_imagenet32_that_is_missing_in_part_names_the_file(tmp_path, imagenet_rows):
    [last] = (tmp_path / imagenet32.FOLDER).glob("train_data_batch_10*")
    last.unlink()
    with pytest.raises(DataError, match=f"there is no {last.name} in"):
        few_imagenet(tmp_path)


def test_imagenet32_with_other_images_is_refused(tmp_path, imagenet_rows):
    folder = tmp_path / imagenet32.FOLDER
    content = np.zeros((2, 64 * 64 * 3), np.uint8)
    for path in folder.glob("val_data*"):
        path.unlink()
    np.savez(folder / "val_data.npz", data=content)
    (folder / "val_data").write_bytes(python3_pickle(content))
    with pytest.raises(DataError, match=r"val_data.*: images are rows of 3,072 bytes, got an array \[2, 12288\]"):
        few_imagenet(tmp_path)


# --- downloads -------------------------------------------------------------------------------------------------------


def everything_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def remote(monkeypatch):
    """A data set "far" with one file; tests give its `fetch`."""

    def read(files):
        if files[0].read_bytes() != b"right":
            raise DataError("far.bin is damaged")
        return {"train": np.zeros((4, 1, 2, 2), np.uint8)}

    def make(fetch) -> None:
        source = FileSet(
            "far",
            lambda data_dir: existing(data_dir / "sub", ["far.bin"]),
            read,
            download=Download(fetch, ["sub/far.bin"]),
        )
        monkeypatch.setitem(DATASETS, "far", source)

    return make


def fetch_right(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "far.bin").write_bytes(b"right")
    (folder / "far.tar.gz").write_bytes(b"not needed")


def test_a_download_puts_the_wanted_files_in_their_place(tmp_path, remote):
    remote(fetch_right)
    images = download("far", tmp_path / "data")
    assert isinstance(images, Images)
    files = everything_in(tmp_path / "data")
    assert files[-1] == "sub/far.bin"
    assert [file.split("/")[0] for file in files] == ["arrow", "sub"]


def test_what_is_there_is_not_downloaded(tmp_path, remote):
    remote(fetch_right)
    download("far", tmp_path)
    load.cache_clear()
    remote(lambda folder: pytest.fail("downloaded again"))
    download("far", tmp_path)


def test_damaged_files_are_downloaded_anew(tmp_path, remote):
    remote(fetch_right)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "far.bin").write_bytes(b"wrong")
    with pytest.raises(DataError, match="damaged"):
        load("far", tmp_path)
    download("far", tmp_path)
    assert (tmp_path / "sub" / "far.bin").read_bytes() == b"right"


@pytest.mark.parametrize(
    "error",
    [
        urllib.error.URLError("Name or service not known"),
        RuntimeError("File not found or corrupted."),
        TimeoutError(),
        EOFError("Compressed file ended"),
        tarfile.ReadError("not a gzip file"),
        RuntimeError("Tried this:\nTried that:\n"),
    ],
    ids=repr,
)
def test_a_failing_download_is_one_line_and_leaves_nothing(tmp_path, remote, error):
    def fetch(folder: Path) -> None:
        fetch_right(folder)
        raise error

    remote(fetch)
    (tmp_path / "kept").write_text("mine")
    with pytest.raises(DataError, match=r"the download to .* failed: .*; no file was kept; try again$") as told:
        download("far", tmp_path)
    assert "\n" not in str(told.value)
    assert everything_in(tmp_path) == ["kept"]
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_an_interrupted_download_leaves_nothing(tmp_path, remote):
    def fetch(folder: Path) -> None:
        fetch_right(folder)
        raise KeyboardInterrupt

    remote(fetch)
    with pytest.raises(KeyboardInterrupt):
        download("far", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_download_without_the_wanted_file_is_told(tmp_path, remote):
    remote(lambda folder: None)
    with pytest.raises(DataError, match=r"failed: there is no sub/far\.bin"):
        download("far", tmp_path)


@pytest.mark.parametrize("name", ["imagenet32", "npz:none.npz"])
def test_what_cannot_be_downloaded_says_what_load_says(tmp_path, name):
    with pytest.raises(DataError) as loaded:
        load(name, tmp_path)
    with pytest.raises(DataError) as downloaded:
        download(name, tmp_path)
    assert str(downloaded.value) == str(loaded.value)


@pytest.mark.parametrize("name", ["mnist", "cifar10", "svhn"])
def test_without_a_network_nothing_is_downloaded(tmp_path, monkeypatch, name):
    def refuse(*arguments, **options):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    with pytest.raises(DataError, match="no network"):
        download(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


class Response(io.BytesIO):
    """A response like those of `urlopen`."""

    def __init__(self, url: str, content: bytes):
        super().__init__(content)
        self.url, self.length = url, len(content)


@pytest.fixture
def network(monkeypatch):
    """Serves files by the last part of their URL."""
    files: dict[str, bytes] = {}

    def urlopen(request, *arguments, **options):
        return Response(request.full_url, files[request.full_url.rpartition("/")[2]])

    monkeypatch.setattr("urllib.request.urlopen", urlopen)
    return files


def test_cifar10_is_downloaded_and_never_unpickled_by_pickle(tmp_path, cifar_rows, network, monkeypatch):
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        tar.add(tmp_path / cifar.FOLDER, cifar.FOLDER)
    network[published.CIFAR10.filename] = archive.getvalue()
    monkeypatch.setattr(published.CIFAR10, "tgz_md5", md5(archive.getvalue()))
    monkeypatch.setattr("pickle.load", lambda *arguments, **options: pytest.fail("unpickled"))
    monkeypatch.setitem(DATASETS, "cifar10", few_cifar)
    images = download("cifar10", tmp_path / "new")
    np.testing.assert_array_equal(images.test, as_images(cifar_rows["test_batch"]))
    assert everything_in(tmp_path / "new")[1:] == [f"{cifar.FOLDER}/{file}" for file in cifar.MD5]


def test_svhn_is_downloaded(tmp_path, svhn_images, network, monkeypatch):
    network |= {file: (tmp_path / file).read_bytes() for file in svhn.MD5}
    lists = {part: [f"http://host/{file}", file, svhn.MD5[file]] for part, file in svhn.FILES.items()}
    monkeypatch.setattr(published.SVHN, "split_list", lists)
    monkeypatch.setitem(DATASETS, "svhn", few_svhn)
    assert len(download("svhn", tmp_path / "new").test) == 2
    assert everything_in(tmp_path / "new")[1:] == ["test_32x32.mat", "train_32x32.mat"]


def test_mnist_is_downloaded(tmp_path, network, monkeypatch):
    labels = gzip.compress(np.array([0x801, 1], dtype=">u4").tobytes() + b"7")
    images = {file: gzip.compress(idx(count=count), 1) for file, count in mnist.FILES.values()}
    network |= {f"{file}.gz": content for file, content in images.items()}
    network |= {f"{part}-labels-idx1-ubyte.gz": labels for part in ("train", "t10k")}
    monkeypatch.setattr(mnist, "MD5", {f"{file}.gz": md5(content) for file, content in images.items()})
    monkeypatch.setattr(published.MNIST, "resources", [(file, md5(network[file])) for file in network])
    assert len(download("mnist", tmp_path).test) == 10_000
    assert everything_in(tmp_path)[:2] == [f"MNIST/raw/{file}-images-idx3-ubyte.gz" for file in ("t10k", "train")]


def test_a_file_with_another_sum_is_not_kept(tmp_path, network):
    network |= dict.fromkeys(svhn.MD5, b"other")
    with pytest.raises(DataError, match=r"File not found or corrupted"):
        download("svhn", tmp_path)
    assert list(tmp_path.iterdir()) == []
