"""The embedded data sets, the registry, and the rules for all images and splits."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits, load_sample_images

from trainables.config import TrainingConfig
from trainables.data import DATASETS, DataError, Images, load
from trainables.data.base import DataSets, split
from trainables.data.files import FileSet
from trainables.registry import UnknownName


def grey(count: int, side: int = 2) -> np.ndarray:
    """Images [count, 1, side, side], each filled with its index."""
    return np.repeat(np.arange(count, dtype=np.uint8), side * side).reshape(count, 1, side, side)


# --- digits ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def images() -> Images:
    return load("digits", Path("nowhere"))


def test_sizes_and_dtype(images):
    assert images.train.shape == (1_437, 1, 8, 8)
    assert images.validation.shape == (360, 1, 8, 8)
    assert images.train.dtype == images.validation.dtype == np.uint8
    assert images.image_shape == (1, 8, 8)


def test_every_image_is_in_one_split_exactly_once(images):
    # Seventeen grey levels 0..16 become 0..255; rounding recovers them. The source has a few equal images, so the test
    # compares how often each image occurs.
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


# --- patches ---------------------------------------------------------------------------------------------------------


def test_patches_are_crops_of_the_photographs_in_three_splits():
    patches = load("patches", Path("nowhere"))
    assert {name: len(part) for name, part in patches.splits.items()} == {"train": 2400, "validation": 300, "test": 300}
    assert patches.image_shape == (3, 32, 32)
    # The first block of the first photograph is for validation, the second for training.
    photograph = np.asarray(load_sample_images().images[0])
    np.testing.assert_array_equal(patches.validation[0], photograph[:32, :32].transpose(2, 0, 1))
    np.testing.assert_array_equal(patches.validation[6], photograph[8:40, 8:40].transpose(2, 0, 1))
    np.testing.assert_array_equal(patches.train[0], photograph[:32, 64:96].transpose(2, 0, 1))


def test_no_pixel_is_in_two_splits_of_patches(monkeypatch):
    # The same crops of photographs in which every pixel has a unique number, in three bytes.
    numbers = np.arange(427 * 640, dtype=np.uint32).reshape(427, 640)
    numbered = np.stack([numbers & 255, numbers >> 8 & 255, numbers >> 16], axis=-1).astype(np.uint8)
    monkeypatch.setattr("sklearn.datasets.load_sample_images", lambda: type("Photographs", (), {"images": [numbered]}))
    patches = DATASETS["patches"](Path("nowhere"))
    pixels = {
        name: set((part.astype(np.uint32) * np.array([1, 1 << 8, 1 << 16])[:, None, None]).sum(1).ravel().tolist())
        for name, part in patches.splits.items()
    }
    assert pixels["train"].isdisjoint(pixels["validation"])
    assert pixels["train"].isdisjoint(pixels["test"])
    assert pixels["validation"].isdisjoint(pixels["test"])
    # 48, 6 and 6 whole blocks.
    assert {name: len(p) / 64**2 for name, p in pixels.items()} == {"train": 48, "validation": 6, "test": 6}


def test_patches_of_every_split_come_from_all_over_the_photographs():
    blocks = [[_split_of(row, column) for column in range(10)] for row in range(6)]
    for row in blocks:
        assert sorted(row) == ["test", *["train"] * 8, "validation"]
    assert len({row.index("validation") for row in blocks}) == 6


def _split_of(row: int, column: int) -> str:
    from trainables.data.patches import _split

    return _split(row, column)


# --- names -----------------------------------------------------------------------------------------------------------


def test_load_reads_once_and_names_what_there_is(images):
    assert load("digits", Path("nowhere")) is images
    with pytest.raises(UnknownName, match=r"unknown data set 'digts'\. Did you mean 'digits'\?"):
        load("digts", Path("nowhere"))
    assert {"cifar10", "digits", "digits28", "imagenet32", "mnist", "patches", "svhn"} <= set(DATASETS)


@pytest.mark.parametrize("name", ["npz:a.npz", "npz:/a/b:c.npz", "folder:a"])
def test_a_kind_and_a_path_name_images_of_ones_own(name):
    source = DATASETS[name]
    assert isinstance(source, FileSet)
    assert source.name == name


@pytest.mark.parametrize("name", ["npz", "npz:", "zip:a.zip", "mnist:a", ":a", "NPZ:a"])
def test_other_names_are_unknown(name):
    with pytest.raises(UnknownName, match=r"unknown data set .*Images of your own: folder:PATH, npz:PATH\."):
        DATASETS[name]


def test_a_configuration_is_checked_for_its_data_set():
    base = {
        "latent": {"family": "gaussian", "size": 2},
        "encoder": {"name": "mlp", "hidden": [2]},
        "decoder": {"name": "mlp", "hidden": [2]},
        "likelihood": {"name": "gaussian_fixed"},
        "estimator": {"name": "reparameterization"},
        "optim": {"name": "adam"},
        "epochs": 1,
        "batch_size": 1,
    }
    keys = {TrainingConfig.model_validate(base | {"data": {"name": f"npz:{file}"}}).key() for file in "ab"}
    assert len(keys) == 2
    with pytest.raises(ValueError, match="unknown data set 'zip:a'"):
        TrainingConfig.model_validate(base | {"data": {"name": "zip:a"}})


def test_a_data_set_is_one_registration():
    sets = DataSets()
    sets.add("mine", lambda data_dir: Images(grey(2), grey(1)))
    assert sets["mine"](Path("nowhere")).image_shape == (1, 2, 2)
    with pytest.raises(ValueError, match="two data sets are named 'mine'"):
        sets.add("mine", sets["mine"])


# --- splits ----------------------------------------------------------------------------------------------------------


def firsts(images: np.ndarray | None) -> list[int]:
    assert images is not None
    return images[:, 0, 0, 0].tolist()


def test_the_last_training_images_are_for_validation():
    images = split({"train": grey(10), "test": grey(3)}, validation=4)
    assert (firsts(images.train), firsts(images.validation)) == ([0, 1, 2, 3, 4, 5], [6, 7, 8, 9])
    assert firsts(images.test) == [0, 1, 2]


@pytest.mark.parametrize(("count", "validation"), [(2, 1), (9, 1), (10, 1), (19, 1), (20, 2), (201, 20)])
def test_a_tenth_but_at_least_one_is_for_validation_by_default(count, validation):
    images = split({"train": grey(count)})
    assert firsts(images.validation) == list(range(count - validation, count))
    assert len(images.train) == count - validation
    assert images.test is None


def test_validation_images_of_the_source_are_taken_as_they_are():
    images = split({"train": grey(3), "validation": grey(2)}, validation=1)
    assert (len(images.train), len(images.validation)) == (3, 2)


@pytest.mark.parametrize(("count", "validation"), [(1, None), (0, None), (5, 5), (5, 6)])
def test_too_few_images_are_refused(count, validation):
    with pytest.raises(DataError, match=f"^\\d+ training images are kept for validation, but there are only {count};"):
        split({"train": grey(count)}, validation)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"train": grey(2).astype(np.float32)}, r"train images must be uint8 .*float32 \(2, 1, 2, 2\)"),
        ({"train": grey(2)[:, 0]}, r"train images must be uint8 \[N, 1 or 3, H, W\]"),
        ({"train": np.zeros((2, 2, 4, 4), np.uint8)}, r"\[N, 1 or 3, H, W\]"),
        ({"train": grey(2)[:0]}, "there are no train images"),
        ({"train": grey(2)[:, :, :0]}, "there are no train images"),
        ({"validation": grey(0)}, "there are no validation images"),
        ({"test": grey(2, side=3)}, r"got \(1, 2, 2\) in the training split and \(1, 3, 3\) in the test split"),
    ],
)
def test_images_of_other_kinds_are_refused(parts, message):
    with pytest.raises(DataError, match=message):
        Images(**({"train": grey(2), "validation": grey(2)} | parts))
