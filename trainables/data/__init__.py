"""Loads data sets as uint8 images in fixed splits, one file a data set. Knows no models and no training.

The splits are described in docs/data.md. New files are registered automatically.
"""

from trainables.data.base import DATASETS, DataError, Images, load
from trainables.data.files import MissingFiles, download
from trainables.registry import import_submodules

import_submodules(__name__, __path__)

__all__ = ["DATASETS", "DataError", "Images", "MissingFiles", "download", "load"]
