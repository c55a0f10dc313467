"""Data sets as inputs of MLflow's runs."""

import hashlib
from functools import cache
from pathlib import Path

import numpy as np
from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.data.numpy_dataset import from_numpy
from mlflow.entities import Dataset, DatasetInput, InputTag

from trainables.data import load

_DIGESTED = 10_000
_CONTEXTS = {"train": "training", "validation": "validation"}


@cache
def inputs(name: str, limit: int | None, data_dir: Path) -> tuple[DatasetInput, ...]:
    """The training and validation images of a data set, the first `limit` of each.

    Raises:
        DataError: the data set is missing.
    """
    splits = load(name, data_dir).limited(limit).splits
    return tuple(_input(name, split, splits[split]) for split in _CONTEXTS)


def _input(name: str, split: str, images: np.ndarray) -> DatasetInput:
    # MLflow's own digest covers only 10,000 numbers (some 13 images), and it copies all images.
    digest = hashlib.sha256(str(images.shape).encode() + images[:_DIGESTED].tobytes()).hexdigest()[:16]
    source = CodeDatasetSource({"data.name": name, "split": split})
    dataset = from_numpy(images, source=source, name=name, digest=digest)
    return DatasetInput(Dataset(**dataset.to_dict()), [InputTag("mlflow.data.context", _CONTEXTS[split])])
