"""A member's numbers do not depend on its cohort: tested for every estimator and model, with random cohorts.

Parts come from the registries; choices and each member's knobs are drawn at random, seeded by the case's name. So a new
estimator, model, likelihood or optimizer is tested as soon as it is registered.
"""

import random
from typing import Any, get_args

import numpy as np
import pytest
import torch
from members import Trained, assert_alike, trained

from search_spaces.space import merge, nested
from trainables.components import KNOB, Frozen
from trainables.config import DataConfig, Guide, ObjectiveConfig, TrainingConfig
from trainables.data import Images
from trainables.estimators import ESTIMATORS
from trainables.latents import LATENTS
from trainables.likelihoods import LIKELIHOODS
from trainables.models import DECODERS, ENCODERS
from trainables.objective import VAE
from trainables.optimizers import OPTIMIZERS
from trainables.packing.step import Step
from trainables.streams import Streams

WIDTH = 4
"""The largest width, depth or number of draws."""
SMALLEST = (((1, 8, 8), 4), ((3, 32, 32), 4), ((3, 32, 32), 64))
"""Shapes of images with numbers of latents; a case uses the first that its model accepts."""
PIXELS = np.random.default_rng(0).integers(0, 256, (33, 3, 32, 32), dtype=np.uint8)
EPOCHS = 2
BATCH = 10
"""The batch size; 25 images leave a smaller last batch."""
MEMBERS = 4
CALM = 1e-5
"""A learning rate at which no training explodes, which would amplify rounding errors."""
DIVERGES = 1e308
"""A learning rate at which no member's first step is finite."""
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-6}
"""float32 is tested for perceptrons only. If a gradient is almost zero, as before batch normalization, Adam steps along
float32's rounding errors, which differ between programs."""


# --- drawing ---------------------------------------------------------------------------------------------------------


def drawn(rng: random.Random, part: Frozen) -> dict[str, Any]:
    """A part's fields: small sizes, random choices, unchanged knobs."""
    fields: dict[str, Any] = {}
    for name, info in type(part).model_fields.items():
        value, choices = getattr(part, name), get_args(info.annotation)
        match value:
            case Frozen():
                value = drawn(rng, value)
            case str() if value in choices:
                value = rng.choice(choices)
            case int() if KNOB not in info.metadata:
                value = min(value, WIDTH)
            case tuple():
                value = tuple(min(one, WIDTH) for one in value)
        fields[name] = value
    return fields


def configuration(rng: random.Random, **names: str) -> tuple[TrainingConfig, tuple[int, int, int]]:
    """A configuration with the named parts and random other parts, and the shape of its images.

    Raises:
        LookupError: the parts do not fit together.
    """
    for _ in range(200):
        parts: dict[str, Any] = {
            kind: drawn(rng, registry[names.get(kind) or rng.choice(sorted(registry))])
            for kind, registry in {
                "latent": LATENTS,
                "encoder": ENCODERS,
                "decoder": DECODERS,
                "likelihood": LIKELIHOODS,
                "estimator": ESTIMATORS,
                "optim": OPTIMIZERS,
            }.items()
        }
        parts["optim"]["lr"] = CALM
        parts |= {
            "data": drawn(rng, DataConfig()),
            "objective": drawn(rng, ObjectiveConfig()),
            "guide": rng.choice([None, drawn(rng, Guide())]),
        }
        for image_shape, size in SMALLEST:
            latent = parts["latent"] | {"size": size}
            try:
                config = TrainingConfig.model_validate(
                    parts | {"latent": latent, "epochs": EPOCHS, "batch_size": BATCH}
                )
                with torch.device("meta"):
                    VAE(config, image_shape)
            except ValueError:
                continue
            return config, image_shape
    raise LookupError(f"no configuration has {names}")


def knob(rng: random.Random, value: float | None) -> float | None:
    """A random value of the same kind: a share stays in [0, 1], an optional value is sometimes None."""
    if value is None:
        return rng.choice([None, 1, 2, 3])
    if value == 0:
        return rng.uniform(0, 0.4)
    return value ** rng.uniform(0.9, 1.1) if value < 1 else value * rng.uniform(0.5, 2)


def members(rng: random.Random, config: TrainingConfig) -> list[TrainingConfig]:
    """Members of one shape that differ in every knob; in two of three draws the last one diverges."""
    found = []
    for seed in rng.sample(range(100), MEMBERS):
        settings = config.model_dump() | {"seed": seed}
        for path, value, role in config.leaves():
            if role is KNOB and path != "seed":
                settings = merge(settings, nested(path, knob(rng, value)))
        found.append(TrainingConfig.model_validate(settings))
    if rng.random() < 2 / 3:
        found[-1] = found[-1].model_copy(update={"optim": config.optim.model_copy(update={"lr": DIVERGES})})
    return found


# --- comparing -------------------------------------------------------------------------------------------------------


def check(case: str, dtype: torch.dtype = torch.float64, **names: str) -> None:
    """Trains members alone and packed, in random groups and orders; raises AssertionError if they differ."""
    rng = random.Random(case)
    config, (colours, *size) = configuration(rng, **names)
    pixels = np.ascontiguousarray(PIXELS[:, :colours, : size[0], : size[1]])
    images = Images(train=pixels[:25], validation=pixels[25:])
    pool = members(rng, config)
    alone = [trained([one], EPOCHS, images, dtype=dtype)[0] for one in pool]
    diverged = [bool(np.isnan(metrics["elbo"])) for metrics, _ in alone]
    assert diverged[-1] or pool[-1].optim.lr < DIVERGES
    assert not all(diverged)
    whole, part = (rng.sample(range(MEMBERS), count) for count in (MEMBERS, 2))
    for company in (whole, part):
        packed = trained([pool[index] for index in company], EPOCHS, images, dtype=dtype, packed=True)
        for index, got in zip(company, packed, strict=True):
            assert_alike(told(got), told(alone[index]), TOLERANCE[dtype])


def told(member: Trained) -> Trained:
    """The numbers of a member to compare: the tensors of a diverged member are left out."""
    metrics, state = member
    return metrics, state if np.isfinite(metrics["elbo"]) else {}


FAMILIES = [(name, family) for name, estimator in sorted(ESTIMATORS.items()) for family in sorted(estimator.families)]
MODELS = [(encoder, decoder) for encoder in sorted(ENCODERS) for decoder in sorted(DECODERS)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize(("estimator", "family"), FAMILIES)
def test_every_estimator(estimator, family, dtype):
    decoder = "linear" if ESTIMATORS[estimator].analytic else "mlp"
    check(f"{estimator} {family}", dtype, estimator=estimator, latent=family, encoder="mlp", decoder=decoder)


@pytest.mark.parametrize(("encoder", "decoder"), MODELS)
def test_every_model(encoder, decoder):
    check(f"{encoder} {decoder}", encoder=encoder, decoder=decoder)


def test_draws_have_all_that_members_can_differ_in():
    cohorts = []
    for encoder, decoder in MODELS:
        rng = random.Random(f"{encoder} {decoder}")  # as in `check`
        cohorts.append(members(rng, configuration(rng, encoder=encoder, decoder=decoder)[0]))
    seen = [config for cohort in cohorts for config in cohort]
    assert {config.optim.name for config in seen} == OPTIMIZERS.keys()
    assert {config.likelihood.name for config in seen} == LIKELIHOODS.keys()
    assert {config.latent.family for config in seen} == LATENTS.keys()
    assert max(config.optim.lr for config in seen) == DIVERGES
    assert any(len({config.guide and config.guide.freeze_epoch for config in cohort}) > 2 for cohort in cohorts)


@pytest.mark.slow
@pytest.mark.parametrize("estimator", sorted(ESTIMATORS))
@pytest.mark.parametrize(("encoder", "decoder"), MODELS)
def test_every_estimator_on_every_model(encoder, decoder, estimator):
    try:
        configuration(random.Random(0), encoder=encoder, decoder=decoder, estimator=estimator)
    except LookupError as error:
        pytest.skip(str(error))
    check(f"{encoder} {decoder} {estimator}", encoder=encoder, decoder=decoder, estimator=estimator)


# --- the comparison can fail -----------------------------------------------------------------------------------------


class OfPositions(Streams):
    """Random streams that depend on a member's place in the cohort instead of its seed."""

    def __init__(self, seeds, **options):
        super().__init__(list(range(len(seeds))) if isinstance(seeds, list) else seeds, **options)


def noise_of_positions(monkeypatch):
    monkeypatch.setattr("trainables.packing.cohort.Streams", OfPositions)


def shared_statistics(monkeypatch):
    honest = Step.__call__

    def mixing(self, state, feed):
        honest(self, state, feed)
        for name, value in state.buffers.items():
            if name.endswith("running_mean"):
                value.copy_(value.mean(0, keepdim=True).expand_as(value))

    monkeypatch.setattr(Step, "__call__", mixing)


def knobs_of_the_first(monkeypatch):
    honest = Step.__call__

    def careless(self, state, feed):
        knobs = {path: value[:1].expand_as(value) for path, value in feed.knobs.items()}
        honest(self, state, feed._replace(knobs=knobs))

    monkeypatch.setattr(Step, "__call__", careless)


@pytest.mark.parametrize("mistake", [noise_of_positions, shared_statistics, knobs_of_the_first])
def test_members_that_depend_on_their_company_are_noticed(mistake, monkeypatch):
    case = {"encoder": "strided", "decoder": "linear", "latent": "bernoulli", "estimator": "decoupled_st_gs"}

    def several_draws() -> None:
        """Not every draw shows every mistake."""
        for number in range(4):
            check(f"company {number}", torch.float64, **case)

    several_draws()
    mistake(monkeypatch)
    with pytest.raises(AssertionError):
        several_draws()
