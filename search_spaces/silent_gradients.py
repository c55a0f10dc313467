"""sg: the tables and figures of Silent Gradients ("Zero-Variance Gradients for Variational Autoencoders").

    python -m sweeps.run paper_grid --only 'sg/*'

| study | in the paper | members | trained only in this study |
|---|---|---|---|
| sg/table2_grid | C.3.3: learning rates x variances | 60 | 60 |
| sg/table1 | Table 1: variance of the encoder's gradient | 25 | 25 |
| sg/table2 | Table 2, Figure 2: fixed variance, MNIST | 25 | 0, the members of sg/table1 |
| sg/table3_D_lr | C.3.4: learning rate of each method | 20 | 20 |
| sg/table3_D_linear_lr | C.3.4: learning rates of the linear decoder's two parts | 32 | 30 |
| sg/table3_D_annealing | C.3.4: annealing rates x freeze epochs | 70, ImageNet 56 | 68, 54 |
| sg/table3_D | Tables 3 and 4, Figures 3 to 5: learned variance | 40 | 40 |

D is mnist, imagenet32 or cifar10; 545 trainings in total. The printed numbers are in `published/silent_gradients.toml`.

Every study uses the choices of the studies before it, as in the paper. The paper gives one number a row and no seeds.
Here the grids are trained with seed 0, and their winners with seeds 1 to 5, so that claims are not tested on the seed
of the selection.

Choices of this project, where the paper leaves something open:
- Discrete latents are bits, 200 latents on MNIST (as Table 2) and 1,024 otherwise: ImageNet's 534.29 nats of KL need at
  least 771 bits.
- Networks have 32 channels (Tables 5, 6); the strided encoder has 32, 64, 128, 256, and its decoder the reverse
  (Tables 7, 8).
- AdamW's weight decay is PyTorch's, 0.01; the temperature of Gumbel-Softmax is 1; the baseline of REINFORCE moves by a
  tenth a step; the nonlinear decoder gives the logarithm of the standard deviation.
- The two learning rates of the linear decoder are chosen from the same grid as all others, with standalone Silent
  Gradients.
- Standalone Silent Gradients train the nonlinear decoder with hard codes. They freeze at epoch 80 while learning rates
  are chosen, then at the best of the printed epochs. On ImageNet, with 100 epochs, both 150 and 200 mean never.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from search_spaces.figures import Curves, Heatmap, Images, Lines
from search_spaces.space import Axis, Claim, Config, Study, Variants, Winner

LEARNING_RATES = (1e-5, 5e-5, 1e-4, 5e-4)
VARIANCES = (0.01, 0.05, 0.1)
ANNEALING_RATES = (1e-3, 5e-3, 1e-2, 5e-2)
FREEZE_EPOCHS = (50, 80, 100, 150, 200)
SELECTION_SEEDS, SEEDS = (0,), (1, 2, 3, 4, 5)

SILENT_CONTINUOUS, SILENT_DISCRETE = "Silent Gradients, continuous", "Silent Gradients, discrete"
SILENT = (SILENT_CONTINUOUS, SILENT_DISCRETE)
BASELINES = ("Reparameterization", "Gumbel-Softmax", "REINFORCE")
"""Labels of methods, as in the paper's tables; "None" there is standalone Silent Gradients."""

_ESTIMATORS = {
    SILENT_CONTINUOUS: {"name": "silent"},
    SILENT_DISCRETE: {"name": "silent"},
    "Reparameterization": {"name": "reparameterization"},
    "Gumbel-Softmax": {"name": "gumbel_softmax", "temperature": 1.0},
    "REINFORCE": {"name": "reinforce", "baseline_momentum": 0.9},
}
_CONTINUOUS = (SILENT_CONTINUOUS, "Reparameterization")
_DISCRETE = (SILENT_DISCRETE, "Gumbel-Softmax", "REINFORCE")
_ADAMW = {"name": "adamw", "beta1": 0.9, "beta2": 0.95, "lr": 5e-4}


def _latent(method: str, size: int) -> Config:
    return {"family": "gaussian" if method in _CONTINUOUS else "bernoulli", "size": size}


# --- Fixed variance: section 3 ----------------------------------------------------------------------------------------

_FIXED: Config = {
    "data": {"name": "mnist"},
    "encoder": {"name": "conv3", "channels": 32},
    "decoder": {"name": "linear"},
    "likelihood": {"name": "gaussian_fixed"},
    "optim": _ADAMW,
    "epochs": 500,
    "batch_size": 64,
}
_FIXED_METHODS = Variants(
    "method",
    {method: {"latent": _latent(method, 200), "estimator": estimator} for method, estimator in _ESTIMATORS.items()},
)
_AHEAD = (
    (SILENT_CONTINUOUS, "Reparameterization"),
    (SILENT_DISCRETE, "Gumbel-Softmax"),
    (SILENT_DISCRETE, "REINFORCE"),
)


def _claims(what: str, metric: str | None = None) -> tuple[Claim, ...]:
    """Claims that Silent Gradients are better than each estimator that they replace."""
    return tuple(
        Claim(f"{silent}: {what} than {other}", {"method": silent}, {"method": other}, metric=metric)
        for silent, other in _AHEAD
    )


TABLE2_GRID = Study(
    name="sg/table2_grid",
    title="Learning rate and variance of a linear decoder",
    source="Silent Gradients, section C.3.3",
    base=_FIXED,
    grid=(_FIXED_METHODS, Axis("likelihood.variance", VARIANCES), Axis("optim.lr", LEARNING_RATES)),
    seeds=SELECTION_SEEDS,
    compare=("method", "likelihood.variance"),
    columns=("bits_per_dim", "mse", "kl"),
    figures=(Lines(x="optim.lr", series="method", panels="likelihood.variance", log_x=True),),
    expectation="A variance of 0.01 is the best of the three for every method.",
)

_BEST_RATE = (Winner(TABLE2_GRID.name, ("optim.lr",), match=("method", "likelihood.variance")),)
_AT_BEST_RATE = (_FIXED_METHODS, Axis("likelihood.variance", (0.01,)))
_MEASURED = _FIXED | {"diagnostics": {"gradient_variance": (10, 200, 500)}}
"""The configuration of both Table 1 and Table 2, so that they have the same members."""

TABLE1 = Study(
    name="sg/table1",
    title="Variance of the encoder's gradient",
    source="Silent Gradients, Table 1",
    base=_MEASURED,
    grid=_AT_BEST_RATE,
    seeds=SEEDS,
    takes=_BEST_RATE,
    metric="gradient_variance",
    compare=("method",),
    columns=("gradient_variance",),
    figures=(Curves("method", log_y=True),),
    published="sg_table1",
    claims=_claims("less gradient variance"),
    expectation="The variance is zero with silent gradients, else about 1e4 (reparameterization), 1e5 (Gumbel-Softmax) "
    "or 1e7 (REINFORCE).",
)

TABLE2 = Study(
    name="sg/table2",
    title="Estimators with a linear decoder of fixed variance",
    source="Silent Gradients, Table 2, section 3.2 and Figure 2",
    base=_MEASURED,
    grid=_AT_BEST_RATE,
    seeds=SEEDS,
    takes=_BEST_RATE,
    compare=("method",),
    columns=("bits_per_dim", "mse", "kl"),
    figures=(Curves("method", target=6.73), Images("method")),
    published="sg_table2",
    claims=(
        *_claims("fewer bits/dim"),
        *_claims("less squared error", metric="mse"),
        Claim(
            f"{SILENT_CONTINUOUS}: 6.73 bits/dim in fewer epochs than Reparameterization, 45 against 90",
            {"method": SILENT_CONTINUOUS},
            {"method": "Reparameterization"},
            reaches=6.73,
        ),
    ),
    expectation="On continuous latents the methods are close, and silent gradients converge sooner. On bits they "
    "differ clearly.",
)


# --- Learned variance: section 4 --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _DataSet:
    """The differences between the data sets of Tables 3 and 4.

    images: the fields of data, networks, epochs and batch size.
    own_epochs: epochs of methods that differ from those in `images`.
    more_kl: baselines that have more KL with Silent Gradients in Table 4.
    beaten: whether the paper claims that standalone Silent Gradients are better than REINFORCE.
    """

    name: str
    figure: str
    images: Config
    latents: int
    freeze_epochs: tuple[int, ...]
    own_epochs: Mapping[str, int]
    more_kl: tuple[str, ...]
    beaten: bool


_SMALL = {"encoder": {"name": "conv3", "channels": 32}, "decoder": {"name": "conv5", "channels": 32}}
_STRIDED = {
    "encoder": {"name": "strided", "channels": (32, 64, 128, 256)},
    "decoder": {"name": "strided", "channels": (256, 128, 64, 32)},
}
DATA_SETS = (
    _DataSet(
        name="mnist",
        figure="Figure 3",
        images=_SMALL | {"data": {"name": "mnist"}, "epochs": 200, "batch_size": 64},
        latents=200,
        freeze_epochs=FREEZE_EPOCHS,
        own_epochs={"REINFORCE": 300},
        more_kl=BASELINES,
        beaten=True,
    ),
    _DataSet(
        name="imagenet32",
        figure="Figure 4",
        images=_STRIDED | {"data": {"name": "imagenet32"}, "epochs": 100, "batch_size": 128},
        latents=1024,
        freeze_epochs=FREEZE_EPOCHS[:-1],  # 150 and 200 are both after the last epoch
        own_epochs={},
        more_kl=BASELINES,
        beaten=True,
    ),
    _DataSet(
        name="cifar10",
        figure="Figure 5",
        images=_STRIDED | {"data": {"name": "cifar10"}, "epochs": 2000, "batch_size": 256},
        latents=1024,
        freeze_epochs=FREEZE_EPOCHS,
        own_epochs={},
        more_kl=("Reparameterization", "REINFORCE"),
        beaten=False,
    ),
)

_LEARNED_ESTIMATORS = _ESTIMATORS | {
    # With standalone Silent Gradients these only give codes to the nonlinear decoder; they never train the encoder.
    SILENT_CONTINUOUS: {"name": "reparameterization"},
    SILENT_DISCRETE: {"name": "straight_through"},
}
_GUIDE = {"annealing_rate": 1e-2, "freeze_epoch": 80, "lr_mu": 5e-4, "lr_alpha": 5e-4}
_WITHOUT, _WITH = "w/o SG", "w/ SG"
_ALONE = Variants("sg", {_WITH: {"guide": _GUIDE | {"annealing_rate": 0.0}}}, when=("method", SILENT))


def _beside(*labels: str) -> tuple[Variants, Variants]:
    """The axis `sg` of the paper's columns: `labels` for the baselines, "w/ SG" for standalone Silent Gradients."""
    patches = {_WITHOUT: {}, _WITH: {"guide": _GUIDE}}
    return Variants("sg", {label: patches[label] for label in labels}, when=("method", BASELINES)), _ALONE


def _learned_variance(d: _DataSet) -> tuple[Study, ...]:
    """The studies of one data set in order; the last one is its part of Tables 3 and 4."""

    def method(name: str) -> Config:
        own = {"epochs": d.own_epochs[name]} if name in d.own_epochs else {}
        return {"estimator": _LEARNED_ESTIMATORS[name], **own}

    def methods(*names: str) -> tuple[Variants, ...]:
        by_latents = {"continuous": _CONTINUOUS, "discrete": _DISCRETE}
        return (
            Variants("latents", {label: {"latent": _latent(of[0], d.latents)} for label, of in by_latents.items()}),
            *(
                Variants("method", {name: method(name) for name in of if name in names}, when=("latents", (label,)))
                for label, of in by_latents.items()
            ),
        )

    base = d.images | {"likelihood": {"name": "gaussian_log_scale"}, "optim": _ADAMW}
    stage = f"sg/table3_{d.name}"
    shared: dict[str, Any] = {"base": base, "compare": ("method", "sg"), "columns": ("bits_per_dim", "kl", "mse")}
    rates = Study(
        name=f"{stage}_lr",
        title=f"Learning rate of each method, {d.name}",
        source="Silent Gradients, section C.3.4",
        grid=(*methods(*SILENT, *BASELINES), *_beside(_WITHOUT), Axis("optim.lr", LEARNING_RATES)),
        seeds=SELECTION_SEEDS,
        figures=(Lines(x="optim.lr", series="method", log_x=True),),
        **shared,
    )
    best_rate = Winner(rates.name, ("optim.lr",), match=("method",))
    linear_rates = Study(
        name=f"{stage}_linear_lr",
        title=f"Learning rates of the linear decoder's mean and precision, {d.name}",
        source="Silent Gradients, section C.3.4",
        grid=(
            *methods(*SILENT),
            _ALONE,
            Axis("guide.lr_mu", LEARNING_RATES),
            Axis("guide.lr_alpha", LEARNING_RATES),
        ),
        seeds=SELECTION_SEEDS,
        takes=(best_rate,),
        figures=(Heatmap("guide.lr_mu", "guide.lr_alpha", panels="method"),),
        **shared,
    )
    annealing = Study(
        name=f"{stage}_annealing",
        title=f"Annealing rate and freeze epoch, {d.name}",
        source="Silent Gradients, section C.3.4",
        grid=(
            *methods(*SILENT, *BASELINES),
            *_beside(_WITH),
            Axis("guide.annealing_rate", ANNEALING_RATES, when=("method", BASELINES)),
            Axis("guide.freeze_epoch", d.freeze_epochs),
        ),
        seeds=SELECTION_SEEDS,
        takes=(best_rate, Winner(linear_rates.name, ("guide.lr_mu", "guide.lr_alpha"), match=("latents",))),
        figures=(Lines(x="guide.freeze_epoch", series="guide.annealing_rate", panels="method"),),
        **shared,
    )
    guide = tuple(f"guide.{field}" for field in _GUIDE)
    table = Study(
        name=stage,
        title=f"Estimators with and without silent gradients, learned variance, {d.name}",
        source=f"Silent Gradients, Tables 3 and 4 and {d.figure}",
        grid=(*methods(*SILENT, *BASELINES), *_beside(_WITHOUT, _WITH)),
        seeds=SEEDS,
        takes=(best_rate, Winner(annealing.name, guide, match=("method",), when=("sg", (_WITH,)))),
        figures=(Curves("sg", panels="method"), Images("sg", panels="method")),
        across="Silent Gradients, Tables 3 and 4",
        published=f"sg_table3_{d.name}",
        claims=_learned_claims(d),
        expectation="Silent gradients lower every baseline's bits/dim, mostly with more KL.",
        **shared,
    )
    return rates, linear_rates, annealing, table


def _learned_claims(d: _DataSet) -> tuple[Claim, ...]:
    fewer_bits = [
        Claim(
            f"{name}: fewer bits/dim with Silent Gradients than without",
            {"method": name, "sg": _WITH},
            {"method": name, "sg": _WITHOUT},
        )
        for name in BASELINES
    ]
    more_kl = [
        Claim(f"{name}: more KL with Silent Gradients than without", claim.better, claim.worse, metric="kl")
        for name, claim in zip(BASELINES, fewer_bits, strict=True)
        if name in d.more_kl
    ]
    alone = Claim(
        "Silent Gradients alone: fewer bits/dim than REINFORCE",
        {"method": SILENT_DISCRETE, "sg": _WITH},
        {"method": "REINFORCE", "sg": _WITHOUT},
    )
    return (*fewer_bits, *more_kl, *([alone] if d.beaten else []))


STUDIES = (
    TABLE2_GRID,
    TABLE1,
    TABLE2,
    *(study for data_set in DATA_SETS for study in _learned_variance(data_set)),
)
