"""dvae: the estimators of the tutorial on discrete VAEs, and the protocol of ReinMax, which the tutorial cites.

    python -m sweeps.run paper_grid --only 'dvae/*'

| study | compares | members |
|---|---|---|
| dvae/tutorial_4x8_rates | learning rates and temperatures, 1 seed | 104 |
| dvae/tutorial_4x8 | the tutorial's sections 6 to 8: 4 latents of 8 categories, binarized MNIST, 10 seeds | 60 |
| dvae/reinmax_4x8_rates, dvae/reinmax_12x16_rates | learning rates and temperatures, 1 seed | 100 each |
| dvae/reinmax_4x8, dvae/reinmax_12x16 | the protocol of Liu et al. 2023: MNIST x / 255, 10 seeds | 50 each |

464 trainings in total. Sizes here are latents x categories. Expect ReinMax with a temperature above 1 to have the best
ELBO, and straight-through Gumbel-Softmax to be best below 1. The tutorial prints no numbers.

Learning rates and temperatures are chosen by the ELBO with seed 0. The chosen ones are trained with seeds 1 to 10, so
that estimators are not compared on the seed of the selection.

Choices of this project, where the texts and their published code leave something open:
- The tutorial derives the model (categorical latents, uniform prior, Bernoulli pixels, binarized images). Its code has
  4 latents of 8 categories, perceptrons with ReLU, and Adam. Binarization is a fresh Bernoulli draw. Widths, epochs and
  batch size are those of the protocol below; learning rates are chosen from a grid.
- ReinMax's code has perceptrons 784-512-256 and back, batches of 100, 160 epochs, 10 seeds, and the learning rate,
  temperature and optimizer that were found for ReinMax: 5e-4, 1.3 and Adam for 4x8, 7e-4, 1.5 and RAdam for 12x16.
  The optimizers are used here; learning rates and temperatures are grids around these values, for every estimator.
- The tutorial's own estimator, the log-derivative trick, has no baseline; here it has the running average of Silent
  Gradients. REBAR represents the control variates of Grathwohl et al. 2018, which the tutorial cites.
- Straight-through Gumbel-Softmax and Gumbel-Rao divide logits plus noise by the temperature, as in Jang et al. 2017.
"""

from collections.abc import Mapping

from search_spaces.decoupled_st_gs import MEASURED, vae
from search_spaces.figures import Curves, Images, Lines
from search_spaces.space import Axis, Claim, Config, Study, Variants, Winner

LEARNING_RATES = (3e-4, 5e-4, 7e-4, 1e-3)
TEMPERATURES = (0.3, 0.5, 0.7, 1.0, 1.3, 1.5)
SELECTION_SEEDS, SEEDS = (0,), tuple(range(1, 11))

_JANG = {"scaling": "logits_and_noise"}
METHODS: Mapping[str, Config] = {
    "Straight-through": {"name": "straight_through"},
    "Gumbel-Softmax": {"name": "gumbel_softmax", **_JANG},
    "ST Gumbel-Softmax": {"name": "st_gumbel_softmax", **_JANG},
    "Gumbel-Rao": {"name": "gumbel_rao", **_JANG},
    "GST": {"name": "gst", "gap": 1.0},
    "ReinMax": {"name": "reinmax"},
    "REINFORCE": {"name": "reinforce"},
    "REBAR": {"name": "rebar"},
    "RLOO": {"name": "rloo", "k": 4},
    "IndeCateR": {"name": "indecater"},
    "DisARM": {"name": "disarm"},
    # The best pair for the 8x4 model in the paper of Decoupled ST-GS.
    "Decoupled ST-GS": {"name": "decoupled_st_gs", "temperature_forward": 1.6, "temperature_backward": 1.3},
}
"""Estimators by their names in tables."""
_WITH_TEMPERATURE = ("Gumbel-Softmax", "ST Gumbel-Softmax", "Gumbel-Rao", "GST", "ReinMax", "REBAR")


def comparison(
    name: str,
    title: str,
    source: str,
    base: Config,
    methods: tuple[str, ...],
    claims: tuple[Claim, ...] = (),
    across: str = "",
) -> tuple[Study, Study]:
    """A comparison of estimators: a study that chooses each one's learning rate and temperature, and one with these."""
    rows = Variants("method", {method: {"estimator": METHODS[method]} for method in methods})
    tempered = tuple(method for method in methods if method in _WITH_TEMPERATURE)
    temperature = "estimator.temperature"
    rates = Study(
        name=f"{name}_rates",
        title=f"{title}: learning rate and temperature",
        source=source,
        base={field: value for field, value in base.items() if field != "diagnostics"},
        grid=(rows, Axis("optim.lr", LEARNING_RATES), Axis(temperature, TEMPERATURES, when=("method", tempered))),
        seeds=SELECTION_SEEDS,
        metric="elbo",
        mode="max",
        compare=("method",),
        columns=("elbo", "bce", "kl"),
        figures=(Lines("optim.lr", series="method", log_x=True), Lines(temperature, series="method")),
        expectation="Straight-through estimators with noise are best at temperatures below 1, ReinMax above 1.",
    )
    measured = ()
    if "gradient_error" in base["diagnostics"]:
        measured = ("gradient_bias_over_exact", "gradient_spread_over_exact", "gradient_cosine")
    best = Study(
        name=name,
        title=title,
        source=source,
        base=base,
        grid=(rows,),
        seeds=SEEDS,
        takes=(
            Winner(rates.name, ("optim.lr",), match=("method",)),
            Winner(rates.name, (temperature,), match=("method",), when=("method", tempered)),
        ),
        metric="elbo",
        mode="max",
        compare=("method",),
        columns=("elbo", "bce", "kl", "iw_bound", *measured),
        figures=(Curves("method"), Images("method"), Images("method", samples=True)),
        across=across,
        claims=claims,
        expectation="ReinMax is ahead of the straight-through estimators.",
    )
    return rates, best


def with_bound(base: Config, exact: bool) -> Config:
    """A configuration that measures the importance-weighted bound at its end, and gradient errors if `exact`.

    exact: whether the model has few enough states for the exact gradient.
    """
    return base | {"diagnostics": {"iw_bound": (base["epochs"],), **(MEASURED["diagnostics"] if exact else {})}}


def ahead(of: tuple[str, ...]) -> tuple[Claim, ...]:
    """Claims that ReinMax has a higher ELBO than each of the other methods."""
    return tuple(
        Claim(f"ReinMax: a higher ELBO than {other}", {"method": "ReinMax"}, {"method": other}) for other in of
    )


_ADAM = {"optim": {"name": "adam"}}
PROTOCOL_4X8 = with_bound(vae(4, 8, lr=5e-4) | _ADAM, exact=True)
PROTOCOL_12X16 = with_bound(vae(12, 16, lr=7e-4), exact=False)
_PROTOCOL_METHODS = ("Straight-through", "ST Gumbel-Softmax", "Gumbel-Rao", "GST", "ReinMax")

STUDIES = (
    *comparison(
        "dvae/tutorial_4x8",
        "Estimators for the tutorial's 4x8 model",
        "An Introduction to Discrete VAEs, sections 6 to 8",
        PROTOCOL_4X8 | {"data": {"name": "mnist", "pixels": "binarize"}},
        ("REINFORCE", "Straight-through", "Gumbel-Softmax", "ST Gumbel-Softmax", "REBAR", "ReinMax"),
    ),
    *comparison(
        "dvae/reinmax_4x8",
        "ReinMax's protocol, 4x8",
        "ReinMax, Liu et al. 2023",
        PROTOCOL_4X8,
        _PROTOCOL_METHODS,
        claims=ahead(_PROTOCOL_METHODS[:-1]),
        across="ReinMax's protocol",
    ),
    *comparison(
        "dvae/reinmax_12x16",
        "ReinMax's protocol, 12x16",
        "ReinMax, Liu et al. 2023",
        PROTOCOL_12X16,
        _PROTOCOL_METHODS,
        claims=ahead(_PROTOCOL_METHODS[:-1]),
        across="ReinMax's protocol",
    ),
)
