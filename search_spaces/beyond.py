"""beyond: the papers' protocols with newer estimators, and with combinations that no paper has.

    python -m sweeps.run beyond --plan
    python -m sweeps.run beyond --only 'beyond/decoupled_reinmax*'

| study | compares | members |
|---|---|---|
| beyond/estimators_4x8 | ten estimators in the protocol of Decoupled ST-GS (DST), Figure 3 | 140 + 100 |
| beyond/estimators_12x16 | ten estimators in the protocol of DST, Figure 4 | 140 + 100 |
| beyond/estimators_bits | eleven estimators with 12 bits instead of the 4x8 code | 144 + 110 |
| beyond/decoupled_reinmax_4x8, _12x16 | ReinMax with two temperatures on DST's grids | 810 each |
| beyond/silent_categorical | Silent Gradients (SG), Table 2, with categorical latents | 20 + 25 |
| beyond/guided | silent gradients guide decoupled ST-GS | 30 + 30 |

The first of two numbers is of a study with the suffix _rates, which chooses learning rates and the like for the other.
2,459 trainings in total; sizes are latents x categories. No numbers were published for these studies. The questions:
- Are unbiased estimators better if there are few latents?
- Does decoupling help ReinMax as it helps ST-GS? Forward temperature 1 is plain ReinMax.
- Do exact gradients early in training help an estimator with bias but low variance?

Choices of this project:
- Learning rates and temperatures are chosen as in `search_spaces.discrete_vae`, with a separate seed.
- 12 bits have as many states as 4 latents of 8 categories, so exact gradients can be computed for comparison.
- Categorical silent gradients have 50 latents of 16 categories, which hold the 200 bits of SG's discrete latents. The
  networks, optimizers and epochs are those of SG on MNIST.
- A guided encoder freezes at epoch 80, the second of SG's values. Both parts of the guide have learning rate 5e-4.
"""

from search_spaces.decoupled_st_gs import BACKWARD, FORWARD, MEASURED, TEMPERATURES, VAE_SEEDS, heatmap, vae
from search_spaces.discrete_vae import METHODS, comparison, with_bound
from search_spaces.figures import Curves, Images, Lines
from search_spaces.silent_gradients import ANNEALING_RATES, DATA_SETS, LEARNING_RATES
from search_spaces.space import Axis, Claim, Config, Study, Sweep, Variants, Winner

_VAE_4X8, _VAE_12X16 = vae(4, 8, lr=5e-4), vae(12, 16, lr=7e-4)
_CATEGORICAL = (
    "Straight-through",
    "ST Gumbel-Softmax",
    "Gumbel-Rao",
    "GST",
    "ReinMax",
    "Decoupled ST-GS",
    "REINFORCE",
    "RLOO",
    "REBAR",
    "IndeCateR",
)

_TABLE = "Estimators old and new"

ESTIMATORS = (
    *comparison(
        "beyond/estimators_4x8",
        "Estimators old and new, 4x8",
        "Decoupled ST-GS, the protocol of Figure 3",
        with_bound(_VAE_4X8, exact=True),
        _CATEGORICAL,
        across=_TABLE,
    ),
    *comparison(
        "beyond/estimators_12x16",
        "Estimators old and new, 12x16",
        "Decoupled ST-GS, the protocol of Figure 4",
        with_bound(_VAE_12X16, exact=False),
        _CATEGORICAL,
        across=_TABLE,
    ),
    *comparison(
        "beyond/estimators_bits",
        "Estimators old and new, 12 bits",
        "Decoupled ST-GS, the protocol of Figure 3 with bits",
        with_bound(_VAE_4X8 | {"latent": {"family": "bernoulli", "size": 12}}, exact=True),
        (*_CATEGORICAL, "DisARM"),
        across=_TABLE,
    ),
)


def _decoupled_reinmax(size: str, base: Config) -> Study:
    return Study(
        name=f"beyond/decoupled_reinmax_{size}",
        title=f"Forward and backward temperature of ReinMax, {size}",
        source="Decoupled ST-GS, Figures 3 and 4, with ReinMax",
        base=base | {"estimator": {"name": "decoupled_reinmax"}},
        grid=(Axis(FORWARD, TEMPERATURES), Axis(BACKWARD, TEMPERATURES)),
        seeds=VAE_SEEDS,
        metric="elbo",
        mode="max",
        compare=(FORWARD, BACKWARD),
        columns=(
            "elbo",
            "bce",
            "kl",
            *(("gradient_bias_over_exact", "gradient_spread") if "diagnostics" in base else ()),
        ),
        figures=(heatmap(), Lines(BACKWARD, series=FORWARD), heatmap("bce")),
        expectation="At forward temperature 1 it is ReinMax, which prefers backward temperatures above 1.",
    )


# --- Silent gradients on categorical latents --------------------------------------------------------------------------

_CODE = {"latent": {"family": "categorical", "size": 50, "categories": 16}}
_ADAMW = {"optim": {"name": "adamw", "beta2": 0.95}}
_SELECTION_SEEDS, _SEEDS = (0,), (1, 2, 3, 4, 5)
_LINEAR: Config = _CODE | {
    "data": {"name": "mnist"},
    "encoder": {"name": "conv3"},
    "decoder": {"name": "linear"},
    "likelihood": {"name": "gaussian_fixed", "variance": 0.01},
    **_ADAMW,
    "epochs": 500,
    "batch_size": 64,
}
_LINEAR_METHODS = Variants(
    "method",
    {
        "Silent Gradients": {"estimator": {"name": "silent"}},
        **{
            method: {"estimator": METHODS[method]}
            for method in ("ST Gumbel-Softmax", "Decoupled ST-GS", "ReinMax", "REINFORCE")
        },
    },
)

SILENT_RATES = Study(
    name="beyond/silent_categorical_rates",
    title="Learning rate with a linear decoder and categorical latents",
    source="Silent Gradients, section C.3.3, with categorical latents",
    base=_LINEAR,
    grid=(_LINEAR_METHODS, Axis("optim.lr", LEARNING_RATES)),
    seeds=_SELECTION_SEEDS,
    compare=("method",),
    figures=(Lines("optim.lr", series="method", log_x=True),),
    expectation="As with bits, discrete latents first pass through a plateau where most of them are saturated.",
)
SILENT = Study(
    name="beyond/silent_categorical",
    title="Estimators with a linear decoder and categorical latents",
    source="Silent Gradients, Table 2, with categorical latents",
    base=_LINEAR,
    grid=(_LINEAR_METHODS,),
    seeds=_SEEDS,
    takes=(Winner(SILENT_RATES.name, ("optim.lr",), match=("method",)),),
    compare=("method",),
    columns=("bits_per_dim", "mse", "kl", "saturated"),
    figures=(Curves("method"), Images("method")),
    claims=tuple(
        Claim(f"Silent Gradients: fewer bits/dim than {other}", {"method": "Silent Gradients"}, {"method": other})
        for other in ("ST Gumbel-Softmax", "REINFORCE")
    ),
    expectation="Silent gradients are better, as they are on bits.",
)

_GUIDED: Config = DATA_SETS[0].images | _CODE | {"likelihood": {"name": "gaussian_log_scale"}} | _ADAMW
_PAIRS = {"1, 1": (1.0, 1.0), "1.6, 1.3": (1.6, 1.3), "0.3, 3": (0.3, 3.0)}
"""Forward and backward temperatures: one shared, and the best pairs in DST for VAEs and for autoencoders."""
_WITHOUT, _WITH = "w/o SG", "w/ SG"
_GUIDE = {"annealing_rate": 1e-2, "freeze_epoch": 80, "lr_mu": 5e-4, "lr_alpha": 5e-4}
_GUIDED_ROWS = (
    Variants(
        "temperatures",
        {
            label: {"estimator": {"name": "decoupled_st_gs", "temperature_forward": f, "temperature_backward": b}}
            for label, (f, b) in _PAIRS.items()
        },
    ),
    Variants("sg", {_WITHOUT: {}, _WITH: {"guide": _GUIDE}}),
)

GUIDED_RATES = Study(
    name="beyond/guided_rates",
    title="Learning and annealing rate of guided decoupled ST-GS",
    source="Silent Gradients, section C.3.4, with Decoupled ST-GS",
    base=_GUIDED,
    grid=(
        *_GUIDED_ROWS,
        Axis("optim.lr", (1e-4, 5e-4)),
        Axis("guide.annealing_rate", ANNEALING_RATES, when=("sg", (_WITH,))),
    ),
    seeds=_SELECTION_SEEDS,
    compare=("temperatures", "sg"),
    figures=(Lines("guide.annealing_rate", series="temperatures", log_x=True),),
    expectation="Slow annealing is best where the estimator is noisiest.",
)
GUIDED = Study(
    name="beyond/guided",
    title="Decoupled ST-GS on categorical latents, with and without silent gradients",
    source="Silent Gradients, Tables 3 and 4, with Decoupled ST-GS",
    base=_GUIDED,
    grid=_GUIDED_ROWS,
    seeds=_SEEDS,
    takes=(
        Winner(GUIDED_RATES.name, ("optim.lr",), match=("temperatures", "sg")),
        Winner(GUIDED_RATES.name, ("guide.annealing_rate",), match=("temperatures", "sg"), when=("sg", (_WITH,))),
    ),
    compare=("temperatures", "sg"),
    columns=("bits_per_dim", "kl", "mse", "saturated"),
    figures=(Curves("sg", panels="temperatures"), Images("sg", panels="temperatures")),
    claims=tuple(
        Claim(
            f"Temperatures {pair}: fewer bits/dim with Silent Gradients than without",
            {"temperatures": pair, "sg": _WITH},
            {"temperatures": pair, "sg": _WITHOUT},
        )
        for pair in _PAIRS
    ),
    expectation="Silent gradients help every pair of temperatures, the equal pair most.",
)

STUDIES = (
    *ESTIMATORS,
    _decoupled_reinmax("4x8", _VAE_4X8 | MEASURED),
    _decoupled_reinmax("12x16", _VAE_12X16),
    SILENT_RATES,
    SILENT,
    GUIDED_RATES,
    GUIDED,
)
SWEEPS = (Sweep("beyond", "The papers' protocols with newer estimators", STUDIES),)
