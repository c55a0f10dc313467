"""Small configurations that the tests train, and helpers to train and compare them."""

from typing import Any

import pytest
from torch import Tensor

from trainables.config import TrainingConfig
from trainables.data import Images
from trainables.estimators import ESTIMATORS
from trainables.packing.cohort import Cohort

Trained = tuple[dict[str, float], dict[str, Tensor]]
"""Metrics of a member's last epoch, and its `state_dict`."""

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


def trained(configs: list[TrainingConfig], epochs: int, images: Images, **options: Any) -> list[Trained]:
    """Trains a cohort for some epochs; returns the result of each member."""
    cohort = Cohort(configs, images, **options)
    for _ in range(epochs):
        metrics = cohort.train_epoch()
    return [({k: float(v[i]) for k, v in metrics.items()}, cohort.members.model_state(i)) for i in range(len(configs))]


def assert_alike(got: Trained, want: Trained, tolerance: float) -> None:
    """Asserts that metrics agree within the tolerance, and tensors within this share of their largest element."""
    assert got[0] == pytest.approx(want[0], rel=tolerance, abs=tolerance, nan_ok=True)
    assert got[1].keys() == want[1].keys()
    for name in want[1]:
        value, exact = (one[1][name].double() for one in (got, want))  # some tensors are boolean
        assert (value - exact).abs().max() <= tolerance * exact.abs().max(), name
