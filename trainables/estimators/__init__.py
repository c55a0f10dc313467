"""Estimates the gradient of E_q[loss(z)], one file a method. Knows latents, but no models and no data.

    from trainables.estimators import ESTIMATORS
    surrogate = ESTIMATORS["decoupled_st_gs"](loss, q, noise, knobs)

`trainables.estimators.base` has the contract. New files are registered automatically.
"""

from typing import Annotated

from pydantic import SerializeAsAny

from trainables.components import chosen_from
from trainables.estimators.base import ESTIMATORS, Estimator
from trainables.registry import import_submodules

import_submodules(__name__, __path__)

EstimatorField = Annotated[SerializeAsAny[Estimator], chosen_from(ESTIMATORS)]

__all__ = ["ESTIMATORS", "Estimator", "EstimatorField"]
