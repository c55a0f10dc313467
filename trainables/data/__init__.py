"""Data sets: uint8 images in fixed splits (docs/data.md). One file a data set; a file added here is found by itself."""

from trainables.data.base import DATASETS, DataError, Images, load
from trainables.data.files import MissingFiles, download
from trainables.registry import import_submodules

import_submodules(__name__, __path__)

__all__ = ["DATASETS", "DataError", "Images", "MissingFiles", "download", "load"]
