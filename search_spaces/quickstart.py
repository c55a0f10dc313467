"""quickstart: both papers in miniature on the digits that ship with scikit-learn.

    python -m sweeps.run quickstart

64 trainings, about a minute on two cores; with `--confirm 5` about 50 more, in half a minute. Expect:
(a) Silent gradients are no worse than reparameterization on Gaussian latents and than the sampling estimators on bits.
    With bits, all methods pass through a plateau where most latents are saturated.
(b) The best temperatures are low; if both are high, the KL collapses to zero.
(c) The search ends at a high learning rate and a variance below 0.02.

Everything is smaller than in the papers: 8x8 images, one hidden layer instead of three convolutions, 40 to 60 epochs.
"""

from search_spaces.figures import Curves, Heatmap, Images
from search_spaces.space import Axis, Claim, LogUniform, Relation, Search, Study, Sweep, Variants

_LINEAR = {
    "data": {"name": "digits"},
    "encoder": {"name": "mlp", "hidden": (128,)},
    "decoder": {"name": "linear"},
    "likelihood": {"name": "gaussian_fixed", "variance": 0.01},
    "optim": {"name": "adamw", "beta2": 0.95},
    "epochs": 40,
    "batch_size": 64,
}
_GAUSSIAN = {"family": "gaussian", "size": 64}
_BITS = {"family": "bernoulli", "size": 64}

ESTIMATORS = Study(
    name="estimators",
    title="Estimators with a linear decoder of fixed variance",
    source="Silent Gradients, Table 2, in miniature",
    base=_LINEAR,
    grid=(
        Variants(
            "method",
            {
                "Gaussian, silent": {"latent": _GAUSSIAN, "estimator": {"name": "silent"}},
                "Gaussian, reparameterization": {"latent": _GAUSSIAN, "estimator": {"name": "reparameterization"}},
                "Bernoulli, silent": {"latent": _BITS, "estimator": {"name": "silent"}},
                "Bernoulli, Gumbel-Softmax": {"latent": _BITS, "estimator": {"name": "gumbel_softmax"}},
                "Bernoulli, REINFORCE": {"latent": _BITS, "estimator": {"name": "reinforce"}},
            },
        ),
        Axis("optim.lr", (3e-4, 1e-3, 3e-3, 1e-2)),
    ),
    compare=("method",),
    figures=(Curves("method"), Images("method")),
    expectation="Silent gradients are no worse than the estimators they replace.",
)

_CATEGORICAL = {
    "data": {"name": "digits", "pixels": "unit"},
    "latent": {"family": "categorical", "size": 4, "categories": 8},
    "encoder": {"name": "mlp", "hidden": (128, 64)},
    "decoder": {"name": "mlp", "hidden": (64, 128)},
    "likelihood": {"name": "bernoulli"},
    "optim": {"name": "radam", "lr": 4e-3},
    "epochs": 60,
    "batch_size": 100,
}
_FORWARD, _BACKWARD = "estimator.temperature_forward", "estimator.temperature_backward"
_TEMPERATURES = (0.3, 0.5, 1.0, 2.0)

TEMPERATURES = Study(
    name="temperatures",
    title="Forward and backward temperature of a 4x8 categorical VAE",
    source="Decoupled ST-GS, Figure 3, in miniature",
    base=_CATEGORICAL | {"estimator": {"name": "decoupled_st_gs"}},
    grid=(Axis(_FORWARD, _TEMPERATURES), Axis(_BACKWARD, _TEMPERATURES)),
    seeds=(0, 1),
    metric="elbo",
    mode="max",
    compare=(_FORWARD, _BACKWARD),
    figures=(Heatmap(_FORWARD, _BACKWARD),),
    claims=(
        Claim(
            "The best pair of two temperatures is ahead of the best single one",
            {_FORWARD: Relation("<", _BACKWARD)},
            {_FORWARD: Relation("=", _BACKWARD)},
        ),
    ),
    expectation="The best pair lies off the diagonal.",
)

SEARCH = Study(
    name="search",
    title="Learning rate and variance, searched",
    source="Silent Gradients, section C.3.3, the grids made continuous",
    base=_LINEAR | {"latent": _GAUSSIAN, "estimator": {"name": "silent"}},
    search=Search(
        space=(LogUniform("optim.lr", 1e-4, 1e-2), LogUniform("likelihood.variance", 3e-3, 1e-1)),
        members=12,
        batch=4,
    ),
    expectation="The best variance is below the middle of its range.",
)

SWEEPS = (Sweep("quickstart", "Both papers in miniature, on real digits", (ESTIMATORS, TEMPERATURES, SEARCH)),)
