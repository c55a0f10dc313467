"""Small configurations that the tests train, and what they have in common."""

from typing import Any

from trainables.config import TrainingConfig
from trainables.estimators import ESTIMATORS

LATENTS: dict[str, dict[str, Any]] = {
    "gaussian": {"family": "gaussian", "size": 3},
    "bernoulli": {"family": "bernoulli", "size": 3},
    "categorical": {"family": "categorical", "size": 2, "categories": 3},
}


def member(family: str = "categorical", estimator: str | dict = "decoupled_st_gs", **changes: Any) -> TrainingConfig:
    """A configuration that trains on digits in a fraction of a second an epoch."""
    estimator = {"name": estimator} if isinstance(estimator, str) else estimator
    analytic = ESTIMATORS[estimator["name"]].analytic
    parts = {
        "latent": LATENTS[family],
        "encoder": {"name": "mlp", "hidden": [12]},
        "decoder": {"name": "linear"} if analytic else {"name": "mlp", "hidden": [10]},
        "likelihood": {"name": "gaussian_fixed", "variance": 0.05},
        "estimator": estimator,
        "optim": {"name": "adam", "lr": 1e-3},
        "epochs": 1,
        "batch_size": 200,
    }
    return TrainingConfig.model_validate(parts | changes)
