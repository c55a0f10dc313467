"""Computes the steps of the Adam family, one file each. Knows no models and no data.

    from trainables.optimizers import OPTIMIZERS
    rows = OPTIMIZERS["adam"].coefficients(knobs, range(1, 101), dtype=torch.float32)

`trainables.optimizers.base` has the contract.
"""

from typing import Annotated

from pydantic import SerializeAsAny

from trainables.components import chosen_from
from trainables.optimizers.base import OPTIMIZERS, Coefficients, Optimizer
from trainables.registry import import_submodules

import_submodules(__name__, __path__)

OptimField = Annotated[SerializeAsAny[Optimizer], chosen_from(OPTIMIZERS)]

__all__ = ["OPTIMIZERS", "Coefficients", "OptimField", "Optimizer"]
