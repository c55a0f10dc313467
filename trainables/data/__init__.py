"""Data sets: uint8 images and a fixed validation split. One file a data set; a file added here is found by itself."""

from trainables.data.base import DATASETS, DataError, Images, load
from trainables.registry import import_submodules

import_submodules(__name__, __path__)

__all__ = ["DATASETS", "DataError", "Images", "load"]
