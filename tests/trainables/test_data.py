"""The embedded data set and the registry of data sets."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from trainables.data import DATASETS, Images, load
from trainables.registry import UnknownName


@pytest.fixture(scope="module")
def images() -> Images:
    return load("digits", Path("nowhere"))


def test_sizes_and_dtype(images):
    assert images.train.shape == (1_437, 1, 8, 8)
    assert images.validation.shape == (360, 1, 8, 8)
    assert images.train.dtype == images.validation.dtype == np.uint8
    assert images.image_shape == (1, 8, 8)


def test_every_image_is_in_one_split_exactly_once(images):
    # Seventeen grey levels 0..16 become 0..255; 16 is recovered by rounding. The source has a few equal images, so
    # what is compared is how often each one occurs.
    def counts(levels: np.ndarray) -> dict[bytes, int]:
        rows = levels.reshape(-1, 64).astype(np.uint8)
        return {row.tobytes(): int(n) for row, n in zip(*np.unique(rows, axis=0, return_counts=True), strict=True)}

    together = np.concatenate([images.train, images.validation])
    assert counts(np.round(together / (255 / 16))) == counts(load_digits().data)


def test_levels_are_spread_over_8_bits(images):
    assert np.array_equal(np.unique(images.train), np.round(np.arange(17) * 255 / 16))


def test_splits_are_alike(images):
    standard_error = images.train.mean((1, 2, 3)).std() * (1 / 1_437 + 1 / 360) ** 0.5
    assert abs(images.train.mean() - images.validation.mean()) < 4 * standard_error


def test_checksum(images):
    digest = hashlib.sha256(images.train.tobytes() + images.validation.tobytes()).hexdigest()
    assert digest == "9bb6673c857efed8a93297190a56b4485be04fc642086788263b0a51ac33448a"


def test_load_reads_once_and_names_what_there_is(images):
    assert load("digits", Path("nowhere")) is images
    with pytest.raises(UnknownName, match=r"unknown data set 'digts'\. Did you mean 'digits'\?"):
        load("digts", Path("nowhere"))
    assert "digits" in DATASETS
