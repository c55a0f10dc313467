"""TrainingConfig: everything that one training depends on, and nothing else.

Its key, a hash of the complete configuration, identifies the training: configurations with the same key give the same
numbers. The place where it runs (device, packing, storage) is not part of it.
"""

import hashlib
import json
import math
import reprlib
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, ValidationError, create_model, model_validator

from trainables.components import (
    KNOB,
    LARGEST,
    SHAPE,
    Count,
    Frozen,
    NonNegativeKnob,
    PositiveKnob,
    PositiveShape,
    Role,
    knob_value,
    lookup,
)
from trainables.data import DATASETS
from trainables.estimators import EstimatorField
from trainables.latents import Latents
from trainables.likelihoods import LIKELIHOODS, Likelihood, LikelihoodField
from trainables.measurements import DIAGNOSTIC_NAMES, DIAGNOSTICS
from trainables.models import DecoderField, EncoderField
from trainables.optimizers import OptimField
from trainables.pixels import PixelKind

TRAINING_SEMANTICS = 1
"""A version, part of every key; it is raised whenever the same configuration would give other numbers."""


def _known_data_set(name: str) -> str:
    lookup(DATASETS, name)
    return name


class DataConfig(Frozen):
    """The images, and how the model sees them.

    name: a data set of docs/data.md, or your own images: "npz:PATH" or "folder:PATH". The path as written is part of
        the key, the images are not: give other images another path.
    pixels: "dequantize", y = (x + u) / 256 with fresh uniform noise u (SG C.1); "unit", x / 255, without noise (DST);
        "binarize", a fresh Bernoulli draw with probability x / 255 (the discrete-VAE tutorial).
    limit: use only this number of images of each split, the first ones; None for all.
    """

    name: Annotated[str, AfterValidator(_known_data_set), SHAPE] = "digits"
    pixels: Annotated[PixelKind, SHAPE] = "dequantize"
    limit: Annotated[Count | None, SHAPE] = None


class ObjectiveConfig(Frozen):
    """The weights of the loss: reconstruction + kl_weight * KL.

    kl_temperature: the distribution in the trained KL: softmax(logits) ("one", as in the published code), or the one
        that the estimator samples from ("forward"). The reported KL and ELBO always use the latter.
    """

    kl_weight: NonNegativeKnob = 1.0
    kl_temperature: Annotated[Literal["one", "forward"], SHAPE] = "one"


class Guide(Frozen):
    """A second, linear decoder. Its silent gradient guides the encoder (SG section 4.2, Figure 1).

    annealing_rate: in epoch n (from 1) the encoder follows w * silent + (1 - w) * estimator + KL, with
        w = max(0, 1 - n * annealing_rate). Rate 0 is the paper's standalone Silent Gradients.
    freeze_epoch: from this epoch on the encoder does not change, including its statistics of batch normalization; the
        model's own decoder still trains.
    anneal: "encoder_gradient", both decoders train at full weight (SG section 4.2); "loss", the losses
        themselves are weighted (SG Algorithm 1), so that at w = 1 the model's own decoder does not train.
    lr_mu, lr_alpha: learning rates of the linear decoder's mean and precision, which have their own optimizers (SG
        C.3.4), of the same kind as the model's.

    The guide is over once the encoder is frozen or w is 0. It then trains no more, costs nothing, and is not part of
    `train_loss`; no other metric depends on it.
    """

    likelihood: LikelihoodField = Field(default=LIKELIHOODS["gaussian_precision"], title="likelihood (guide)")
    annealing_rate: NonNegativeKnob = 0.0
    freeze_epoch: Annotated[Count | None, KNOB] = None
    anneal: Annotated[Literal["encoder_gradient", "loss"], SHAPE] = "encoder_gradient"
    lr_mu: PositiveKnob = Field(default=1e-3, title="learning rate (mean of the guide)")
    lr_alpha: PositiveKnob = Field(default=1e-3, title="learning rate (precision of the guide)")

    def epochs(self, epochs: int) -> int:
        """How many of this many epochs train the guide, before it is over."""
        ends = [epochs + 1] if self.freeze_epoch is None else [epochs + 1, self.freeze_epoch]
        ends += [math.ceil(1 / self.annealing_rate)] if self.annealing_rate > 0 else []
        return min(ends) - 1


Epochs = Annotated[tuple[Count, ...], SHAPE]


_fields: dict[str, Any] = dict.fromkeys(DIAGNOSTIC_NAMES, (Epochs, ()))
_Due = create_model("_Due", __base__=Frozen, __module__=__name__, **_fields)


class DiagnosticsConfig(_Due):
    """The epochs after which each diagnostic is measured (docs/diagnostics.md); none by default.

    There is one field for each diagnostic. Measuring changes nothing in the training, and does not count as its time.

    draws: how many codes each diagnostic draws per image; None for the diagnostic's default.
    """

    draws: Annotated[int | None, Field(ge=2, le=LARGEST), SHAPE] = None

    def due(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """(name, epochs) of every diagnostic that is to be measured."""
        for name, epochs in self:
            if name != "draws" and epochs:
                yield name, epochs


_IN_EVERY_KEY = ("draws", "gradient_variance", "gradient_gap", "gradient_error", "iw_bound")
"""The fields of `DiagnosticsConfig` that are in every key. Other fields are only in the keys of configurations that set
them, so a new diagnostic changes no existing key."""


Precision = Literal["float32", "bf16"]


class TrainingConfig(Frozen):
    """The complete configuration of one training, validated before anything starts.

    precision: of matrix products and convolutions in the networks; parameters, optimizer, sampling and losses are
        float32 in both cases. "bf16" gives other numbers, so it is part of the key (docs/performance.md: when it pays).
    """

    data: DataConfig = Field(default=DataConfig(), title="data set")
    latent: Latents
    encoder: EncoderField
    decoder: DecoderField
    likelihood: LikelihoodField
    estimator: EstimatorField
    objective: ObjectiveConfig = ObjectiveConfig()
    guide: Annotated[Guide | None, SHAPE] = None
    optim: OptimField = Field(title="optimizer")
    epochs: PositiveShape
    batch_size: PositiveShape
    precision: Annotated[Precision, SHAPE] = "float32"
    diagnostics: DiagnosticsConfig = DiagnosticsConfig()
    seed: Annotated[int, Field(ge=0, lt=2**63), KNOB] = 0

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        self.estimator.check(self.latent)
        if self.estimator.analytic:
            if not self.decoder.linear:
                raise ValueError(
                    f"estimator {self.estimator.name!r} needs a linear decoder, got {self.decoder.name!r}; "
                    "use decoder 'linear', or another estimator with a guide"
                )
            self._check_analytic(f"estimator {self.estimator.name!r}", self.likelihood)
        if self.estimator.transforms_loss and self.decoder.batch_normalized:
            raise ValueError(
                f"estimator {self.estimator.name!r} needs a decoder without batch normalization, "
                f"got {self.decoder.name!r}"
            )
        if self.guide is not None:
            self._check_analytic("guide", self.guide.likelihood)
        if self.likelihood.binary and self.data.pixels == "dequantize":
            name = self.likelihood.name
            raise ValueError(f"a {name} likelihood needs data.pixels 'unit' or 'binarize', got 'dequantize'")
        if self.likelihood.alternative is not None and not self.decoder.linear:
            name, alternative = self.likelihood.name, self.likelihood.alternative
            raise ValueError(
                f"likelihood {name!r} needs a linear decoder, got {self.decoder.name!r}; use {alternative!r}"
            )
        for name, epochs in self.diagnostics.due():
            DIAGNOSTICS[name].check(self)
            if max(epochs) > self.epochs:
                raise ValueError(f"{name} is due after epoch {max(epochs)}, but the training has {self.epochs}")
        return self

    def _check_analytic(self, what: str, likelihood: Likelihood) -> None:
        if not likelihood.analytic:
            known = " or ".join(repr(name) for name, one in sorted(LIKELIHOODS.items()) if one.analytic)
            raise ValueError(f"{what} needs likelihood {known}, got {likelihood.name!r}")
        likelihood.check_expectation(self.latent)

    def key(self) -> str:
        """A hash of the complete configuration and TRAINING_SEMANTICS: 96 bits of SHA-256, in hexadecimal."""
        content = self.model_dump(mode="json")
        content["diagnostics"] = {
            name: value for name, value in content["diagnostics"].items() if value or name in _IN_EVERY_KEY
        }
        return _digest(content | self._corrected())

    def _corrected(self) -> dict[str, str]:
        """Corrections of the code that changed this configuration's numbers, and so its key, but no other key."""
        temperature, scaling = (getattr(self.estimator, name, None) for name in ("temperature", "scaling"))
        if "gradient_gap" in dict(self.diagnostics.due()) and scaling == "logits_and_noise" and temperature != 1:
            return {"gradient_gap": "at the temperature of the estimator"}
        return {}

    def shape_key(self) -> str:
        """A hash of all fields except the knobs; configurations with the same hash can be trained as one stack."""
        return _digest({path: value for path, value, role in self.leaves() if role is SHAPE})

    def knobs(self) -> dict[str, float]:
        """The knobs by dotted path, without the seed, as numbers (`knob_value`)."""
        return {path: knob_value(value) for path, value, role in self.leaves() if role is Role.KNOB and path != "seed"}

    def flat(self) -> dict[str, Any]:
        """Every field by dotted path."""
        return {path: list(value) if isinstance(value, tuple) else value for path, value, _ in self.leaves()}


def _digest(content: dict[str, Any]) -> str:
    text = json.dumps([TRAINING_SEMANTICS, content], sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


_RULES = {
    "missing": "is required",
    "greater_than": "must be > {gt:g}",
    "greater_than_equal": "must be >= {ge:g}",
    "less_than": "must be < {lt:g}",
    "less_than_equal": "must be <= {le}",
    "finite_number": "must be a finite number",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "string_type": "must be text",
    "tuple_type": "must be a list",
    "literal_error": "must be {expected}",
    "model_type": "must be a table of fields",
}
"""Messages for pydantic's error types, for people who write configurations."""


def explain(error: ValidationError) -> str:
    """The first error of a validation in one line: field, rule, value."""
    first = error.errors(include_url=False)[0]
    kind, where = first["type"], ".".join(str(part) for part in first["loc"])
    if kind in ("value_error", "complaint"):
        message = first["msg"].removeprefix("Value error, ")
        return f"{where}: {message}" if where else message
    rule = _RULES[kind].format(**first.get("ctx", {})) if kind in _RULES else first["msg"]
    got = "" if kind == "missing" else f", got {reprlib.repr(first['input'])}"
    return f"{where or 'a configuration'} {rule}{got}"
