"""dst: the figures and the table of Decoupled ST-GS.

    python -m sweeps.run paper_grid --only 'dst/*'

| study | in the paper | members | trained only in this study |
|---|---|---|---|
| dst/fig2_D | Figure 2: binary autoencoders, 9 x 12 pairs, 5 seeds | 540 each | 540 each |
| dst/fig3 | Figure 3: 8x4 categorical VAE, 9 x 9 pairs, 10 seeds | 810 | 810 |
| dst/fig4 | Figure 4: 16x12 categorical VAE, 9 x 9 pairs, 10 seeds | 810 | 810 |
| dst/fig5 | Figure 5: log gradient gap of the autoencoder | 540 | 0, the members of dst/fig2_cifar10 |
| dst/fig6_forward, dst/fig6_backward | Figure 6: bias and variance of the 8x4 VAE | 90 each | 0, members of dst/fig3 |
| dst/table1 | Table 1: twelve temperature schedules and two constant pairs, 5 seeds | 70 | 70 |

D is mnist, cifar10 or svhn; 3,310 trainings in total. Expect the best pair off the diagonal: forward low and backward
high for the autoencoders, forward above backward for the VAEs. Printed numbers: `published/decoupled_st_gs.toml`.

Choices of this project, where the paper leaves something open:
- Temperatures. The paper gives the ends of the grids, 0.3 and 3.0 (backward 6.0 for autoencoders), and 1.6 and 1.3 as
  values of the 8x4 grid; the heatmap of Figure 4 has nine rows and columns, with 1.6 at the fifth. Nine evenly spaced
  values from 0.3 to 3.0, to one decimal, agree with all this. Backward ones of autoencoders go on to 6.0 in steps of 1.
- VAEs have batch size 100 and ReLU, as in the published code of ReinMax: appendix A.2 has the same architecture,
  epochs, learning rates and numbers of seeds as that code.
- VAEs are trained and measured on pixels x / 255 with binary cross-entropy, as in that code. Figures 3 and 4 show only
  the cross-entropy. It is the metric here too; a second heatmap shows the ELBO.
- The autoencoder's code is 8 x 8 x 32 = 2,048 bits. The paper names only convolutions and residual connections; the
  networks here are those of van den Oord et al. 2017 (`trainables.models.residual`). The loss is the squared error of
  an image (a Gaussian of variance 1/2, no KL), reported as the mean over pixels.
- Schedules are linear in the epoch.
- Gradients are measured after the last epoch. As in appendix C, Figure 6 shows the bias relative to the exact gradient,
  and the standard deviation not relative to it. Figure 5 does not name its data set; here it is CIFAR-10.
"""

from search_spaces.figures import Heatmap, Lines
from search_spaces.space import Axis, Claim, Config, Relation, Study, Variants

FORWARD, BACKWARD = "estimator.temperature_forward", "estimator.temperature_backward"
TEMPERATURES = (0.3, 0.6, 1.0, 1.3, 1.6, 2.0, 2.3, 2.7, 3.0)
"""Temperatures of both passes of the VAEs, and of the forward pass of the autoencoders."""
BACKWARD_TEMPERATURES = (*TEMPERATURES, 4.0, 5.0, 6.0)
"""Temperatures of the backward pass of the autoencoders."""

DIAGONAL = {FORWARD: Relation("=", BACKWARD)}
"""The pairs with equal temperatures, which are plain ST-GS."""
_BELOW, _ABOVE = {FORWARD: Relation("<", BACKWARD)}, {FORWARD: Relation(">", BACKWARD)}
_PLATEAU, _REVERSED = {FORWARD: 0.3, BACKWARD: 3.0}, {FORWARD: 3.0, BACKWARD: 0.3}


def heatmap(metric: str | None = None, log: bool = False) -> Heatmap:
    """A heatmap of a metric over both temperatures; rows are forward temperatures."""
    return Heatmap(FORWARD, BACKWARD, metric, log=log)


# --- Binary autoencoders: section 5.1.1, appendices A.1 and B ---------------------------------------------------------

AUTOENCODER: Config = {
    "data": {"name": "cifar10", "pixels": "unit"},
    "latent": {"family": "bernoulli", "size": 8 * 8 * 32},
    "encoder": {"name": "residual"},
    "decoder": {"name": "residual"},
    "likelihood": {"name": "gaussian_fixed", "variance": 0.5},
    "objective": {"kl_weight": 0.0},
    "optim": {"name": "adam", "lr": 3e-4},
    "epochs": 100,
    "batch_size": 64,
}
AUTOENCODER_SEEDS = (0, 1, 2, 3, 4)
DATA_SETS = ("mnist", "cifar10", "svhn")
_DECOUPLED_AUTOENCODER = AUTOENCODER | {"estimator": {"name": "decoupled_st_gs"}}
# Measured in Figure 2 too, so that Figure 5 uses its members; this costs a quarter of an epoch.
_WITH_GAP = _DECOUPLED_AUTOENCODER | {"diagnostics": {"gradient_gap": (100,)}}
_PAIRS = (Axis(FORWARD, TEMPERATURES), Axis(BACKWARD, BACKWARD_TEMPERATURES))


def _figure2(name: str) -> Study:
    measured = name == "cifar10"
    return Study(
        name=f"dst/fig2_{name}",
        title=f"Forward and backward temperature of a binary autoencoder, {name}",
        source="Decoupled ST-GS, Figure 2",
        base=_WITH_GAP if measured else _DECOUPLED_AUTOENCODER,
        grid=(Axis("data.name", (name,)), *_PAIRS),
        seeds=AUTOENCODER_SEEDS,
        metric="mse_per_pixel",
        compare=(FORWARD, BACKWARD),
        columns=("mse_per_pixel", "saturated", *(("gradient_gap",) if measured else ())),
        figures=(heatmap(), Lines(BACKWARD, series=FORWARD)),
        claims=(
            Claim("The best pair has a forward temperature below the backward one", better=_BELOW, worse=DIAGONAL),
            Claim("0.3 and 3.0 are better than any single temperature", _PLATEAU, DIAGONAL),
            Claim("0.3 and 3.0 are better than 3.0 and 0.3", _PLATEAU, _REVERSED),
        ),
        expectation="The error is lower at low forward and high backward temperatures; no gain beyond 0.3 and 3.0.",
    )


FIGURE5 = Study(
    name="dst/fig5",
    title="Gradient gap of a binary autoencoder, CIFAR-10",
    source="Decoupled ST-GS, Figure 5 and appendix D",
    base=_WITH_GAP,
    grid=_PAIRS,
    seeds=AUTOENCODER_SEEDS,
    metric="gradient_gap",
    compare=(FORWARD, BACKWARD),
    columns=("gradient_gap", "mse_per_pixel"),
    figures=(heatmap(log=True),),
    claims=tuple(
        Claim(
            f"Forward temperature {forward}: a smaller gradient gap at backward temperature 6.0 than at 0.3",
            {FORWARD: forward, BACKWARD: 6.0},
            {FORWARD: forward, BACKWARD: 0.3},
        )
        for forward in (0.3, 3.0)
    ),
    expectation="The gap falls as the backward temperature rises.",
)

_SCHEDULES = (
    ((1, 0.3), (1, 0.3)),
    ((1, 0.3), (1, 1)),
    ((1, 0.3), (1, 2)),
    ((1, 1), (1, 0.3)),
    ((1, 1), (1, 1)),
    ((1, 1), (1, 2)),
    ((1, 2), (1, 0.3)),
    ((1, 2), (1, 1)),
    ((1, 2), (1, 2)),
    ((0.3, 0.03), (5, 3)),
    ((0.3, 0.03), (1, 3)),
    ((0.3, 2), (5, 3)),
    ((0.3, 2), (1, 3)),
    ((0.3, 0.3), (3, 3)),
)
"""(start, end) of the forward and of the backward temperature: the rows of Table 1, then its two constant pairs."""


def _way(start: float, end: float) -> str:
    return f"{start:g}" if start == end else f"{start:g}→{end:g}"


def _schedule(forward: tuple[float, float], backward: tuple[float, float]) -> Config:
    fields = {}
    for path, (start, end) in (("temperature_forward", forward), ("temperature_backward", backward)):
        fields |= {path: start} if start == end else {path: start, f"{path}_end": end}
    return {"estimator": {"name": "decoupled_st_gs", **fields}}


TABLE1 = Study(
    name="dst/table1",
    title="Temperature schedules of a binary autoencoder, CIFAR-10",
    source="Decoupled ST-GS, Table 1",
    base=_DECOUPLED_AUTOENCODER,
    grid=(Variants("schedule", {f"{_way(*f)} | {_way(*b)}": _schedule(f, b) for f, b in _SCHEDULES}),),
    seeds=AUTOENCODER_SEEDS,
    metric="mse_per_pixel",
    compare=("schedule",),
    columns=("mse_per_pixel", "saturated"),
    published="dst_table1",
    claims=(
        Claim(
            "The fixed pair 0.3, 3 is better than raising the forward and lowering the backward temperature",
            {"schedule": "0.3 | 3"},
            {"schedule": "1→2 | 1→0.3"},
        ),
        *(
            Claim(
                f"Forward {forward}: better with a backward temperature that rises than with one that falls",
                {"schedule": f"{forward} | 1→2"},
                {"schedule": f"{forward} | 1→0.3"},
            )
            for forward in ("1→0.3", "1", "1→2")
        ),
    ),
    expectation="No schedule is better than the fixed pair by more than the spread over seeds.",
)


# --- Categorical VAEs: section 5.1.2, appendices A.2 and C ------------------------------------------------------------


def vae(latents: int, categories: int, lr: float) -> Config:
    """The VAE of appendix A.2, without an estimator."""
    return {
        "data": {"name": "mnist", "pixels": "unit"},
        "latent": {"family": "categorical", "size": latents, "categories": categories},
        "encoder": {"name": "mlp", "hidden": (512, 256)},
        "decoder": {"name": "mlp", "hidden": (256, 512)},
        "likelihood": {"name": "bernoulli"},
        "optim": {"name": "radam", "lr": lr},
        "epochs": 160,
        "batch_size": 100,
    }


VAE_8X4, VAE_16X12 = vae(4, 8, lr=5e-4), vae(12, 16, lr=7e-4)
"""Named as in the paper: categories x latents."""
VAE_SEEDS = tuple(range(10))
MEASURED = {"diagnostics": {"gradient_error": (160,)}}
"""Measures bias and spread of the estimated gradient. Only the 8x4 model has few enough states for this."""
_DECOUPLED_8X4 = VAE_8X4 | MEASURED | {"estimator": {"name": "decoupled_st_gs"}}


def _temperatures(name: str, size: str, base: Config, published: str | None, best: tuple[Claim, ...] = ()) -> Study:
    measured = ("gradient_bias_over_exact", "gradient_spread") if "diagnostics" in base else ()
    return Study(
        name=f"dst/{name}",
        title=f"Forward and backward temperature of a {size} categorical VAE",
        source=f"Decoupled ST-GS, Figure {name.removeprefix('fig')}",
        base=base,
        grid=(Axis(FORWARD, TEMPERATURES), Axis(BACKWARD, TEMPERATURES)),
        seeds=VAE_SEEDS,
        metric="bce",
        compare=(FORWARD, BACKWARD),
        columns=("bce", "elbo", "kl", *measured),
        figures=(heatmap(), Lines(BACKWARD, series=FORWARD), heatmap("elbo")),
        published=published,
        claims=(
            Claim("The best pair has a forward temperature above the backward one", better=_ABOVE, worse=DIAGONAL),
            *best,
        ),
        expectation="The best pairs have a forward temperature above the backward one.",
    )


FIGURE3 = _temperatures(
    "fig3",
    "8x4",
    _DECOUPLED_8X4,
    None,
    (Claim("1.6 and 1.3 are better than any single temperature", {FORWARD: 1.6, BACKWARD: 1.3}, DIAGONAL),),
)
FIGURE4 = _temperatures("fig4", "16x12", VAE_16X12 | {"estimator": {"name": "decoupled_st_gs"}}, "dst_fig4")


def _figure6(name: str, path: str, fixed: str, at: float, better: float, worse: float) -> Study:
    return Study(
        name=f"dst/fig6_{name}",
        title=f"Bias and spread of the gradient over the {name} temperature, 8x4 categorical VAE",
        source="Decoupled ST-GS, Figure 6 and appendix C",
        base=_DECOUPLED_8X4,
        grid=(Axis(fixed, (at,)), Axis(path, TEMPERATURES)),
        seeds=VAE_SEEDS,
        metric="gradient_bias_over_exact",
        compare=(path,),
        columns=("gradient_bias_over_exact", "gradient_spread", "exact_gradient_norm", "gradient_cosine", "bce"),
        figures=(Lines(path), Lines(path, metric="gradient_spread")),
        claims=tuple(
            Claim(f"Less {what} at {name} temperature {better} than at {worse}", {path: better}, {path: worse}, metric)
            for what, metric in (("bias", "gradient_bias_over_exact"), ("spread", "gradient_spread"))
        ),
        expectation=f"Bias and spread are smaller at {name} temperature {better} than at {worse}.",
    )


STUDIES = (
    *(_figure2(name) for name in DATA_SETS),
    FIGURE3,
    FIGURE4,
    FIGURE5,
    _figure6("forward", FORWARD, fixed=BACKWARD, at=1.3, better=0.3, worse=3.0),
    _figure6("backward", BACKWARD, fixed=FORWARD, at=1.6, better=3.0, worse=0.3),
    TABLE1,
)
