"""MNIST from idx files: correct files are read, others are refused."""

import gzip

import numpy as np
import pytest

from trainables.data import DATASETS, DataError
from trainables.data.mnist import mnist

TRAIN, TEST = "train-images-idx3-ubyte", "t10k-images-idx3-ubyte"


def idx(*, magic=0x803, count=60_000, height=28, width=28, missing_bytes=0) -> bytes:
    """An idx file; image i is filled with i mod 251."""
    header = np.array([magic, count, height, width], dtype=">u4").tobytes()
    rows = np.repeat(np.arange(count, dtype=np.int64) % 251, height * width).astype(np.uint8)
    return header + rows.tobytes()[: rows.size - missing_bytes]


@pytest.fixture
def raw(tmp_path):
    """The folder of the files, with correct test images."""
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    (folder / TEST).write_bytes(idx(count=10_000))
    return folder


def test_splits_the_training_file_in_order(raw, tmp_path):
    (raw / TRAIN).write_bytes(idx())
    images = mnist(tmp_path)
    assert images.train.shape == (50_000, 1, 28, 28)
    assert images.validation.shape == images.test.shape == (10_000, 1, 28, 28)
    assert images.train.dtype == images.validation.dtype == images.test.dtype == np.uint8
    first_pixels = np.concatenate([images.train, images.validation])[:, 0, 0, 0]
    np.testing.assert_array_equal(first_pixels, np.arange(60_000) % 251)
    np.testing.assert_array_equal(images.validation[:, 0, 27, 27], np.arange(50_000, 60_000) % 251)
    np.testing.assert_array_equal(images.test[:, 0, 27, 27], np.arange(10_000) % 251)


@pytest.mark.parametrize("missing", [TRAIN, TEST])
def test_missing_files_say_what_and_how(raw, tmp_path, missing):
    (raw / TRAIN).write_bytes(idx())
    (raw / missing).unlink()
    with pytest.raises(
        DataError, match=rf"no {missing}.gz in .*add --download to the command.*download\('mnist', "
    ) as error:
        mnist(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("wrong", [{"magic": 0x801}, {"count": 10_000}, {"height": 27}])
def test_another_idx_file_is_refused(raw, tmp_path, wrong):
    (raw / TRAIN).write_bytes(idx(**wrong))
    with pytest.raises(DataError, match=r"is not MNIST.*60,000 images"):
        mnist(tmp_path)


def test_a_truncated_file_is_refused(raw, tmp_path):
    (raw / TRAIN).write_bytes(idx(missing_bytes=1))
    with pytest.raises(DataError, match="47,040,015 bytes, expected 47,040,016"):
        mnist(tmp_path)
    assert not (tmp_path / "arrow").exists()


def test_an_empty_file_is_refused(raw, tmp_path):
    (raw / TRAIN).write_bytes(b"")
    with pytest.raises(DataError, match="is not MNIST"):
        mnist(tmp_path)


@pytest.mark.parametrize("file", [TRAIN, TEST])
def test_an_archive_of_other_content_is_refused(raw, tmp_path, file):
    (raw / TRAIN).write_bytes(idx())
    (raw / f"{file}.gz").write_bytes(gzip.compress(idx(count=10)))
    with pytest.raises(DataError, match=rf"{file}.gz is damaged: md5"):
        mnist(tmp_path)


def test_the_original_files(real_data):
    images = DATASETS["mnist"](real_data)
    everything = np.concatenate([images.train, images.validation])
    assert everything.shape == (60_000, 1, 28, 28)
    # The published mean of the training set is 0.1307 of 255; the test set's is 0.1325.
    np.testing.assert_allclose(everything.mean(), 33.3184, atol=1e-4)
    np.testing.assert_allclose(images.test.mean() / 255, 0.1325, atol=5e-5)
    # The first inked pixel of the first digit, a 5.
    row, column = np.argwhere(images.train[0, 0])[0]
    assert (row, column, images.train[0, 0, row, column]) == (5, 12, 3)


def test_unpacked_equals_packed(real_data, raw, tmp_path):
    for file in (TRAIN, TEST):
        (raw / file).write_bytes(gzip.decompress((real_data / "MNIST" / "raw" / f"{file}.gz").read_bytes()))
    unpacked, packed = mnist(tmp_path), mnist(real_data)
    np.testing.assert_array_equal(unpacked.validation, packed.validation)
    np.testing.assert_array_equal(unpacked.test, packed.test)
