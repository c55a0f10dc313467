"""TrainingConfig: refused values and their messages, keys, shapes and knobs."""

import copy
import math
import pickle
import reprlib
import subprocess
import sys
from typing import Any

import pytest
import torch
from members import LATENTS, member
from pydantic import ValidationError

from trainables.components import KNOB, SHAPE, Component, Frozen
from trainables.config import Guide, TrainingConfig, explain
from trainables.estimators import ESTIMATORS
from trainables.likelihoods import LIKELIHOODS
from trainables.likelihoods.gaussian import GaussianPrecision
from trainables.models import DECODERS, ENCODERS
from trainables.optimizers import OPTIMIZERS
from trainables.registry import Registry, UnknownName, nearest

GUIDED = {"guide": {"freeze_epoch": 1}}
REGISTRIES = {
    "estimator": ESTIMATORS,
    "encoder": ENCODERS,
    "decoder": DECODERS,
    "likelihood": LIKELIHOODS,
    "optim": OPTIMIZERS,
}
COMPONENTS = [component for registry in REGISTRIES.values() for component in registry.values()]


BIG = reprlib.repr(10**400)
IN_FLOAT32 = "must be between 1.18e-38 and 3.4e+38, the range of float32"


# --- frozen, complete, refusing --------------------------------------------------------------------------------------


def test_is_frozen():
    config = member()
    with pytest.raises(ValidationError, match="frozen"):
        config.epochs = 2  # pyright: ignore
    with pytest.raises(ValidationError, match="frozen"):
        config.optim.lr = 2.0  # pyright: ignore


def refused(**changes: Any) -> str:
    """The one-line message that refuses a change of a valid configuration."""
    with pytest.raises(ValidationError) as info:
        TrainingConfig.model_validate(member().model_dump() | changes)
    line = explain(info.value)
    assert "\n" not in line
    assert "Input" not in line
    assert "pydantic" not in line
    return line


def optim(**changes: Any) -> dict[str, Any]:
    return {"optim": {"name": "adam"} | changes}


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"epochs": 0}, "epochs must be > 0, got 0"),
        ({"epochs": 1.5}, "epochs must be a whole number, got 1.5"),
        ({"epochs": "ten"}, "epochs must be a whole number, got 'ten'"),
        ({"epochs": None}, "epochs must be a whole number, got None"),
        ({"batch_size": -3}, "batch_size must be > 0, got -3"),
        ({"epochs": 2**31}, "epochs must be <= 2147483647, got 2147483648"),
        ({"encoder": {"name": "mlp", "hidden": [10**400]}}, f"encoder.hidden.0 must be <= 2147483647, got {BIG}"),
        ({"guide": {"freeze_epoch": 10**400}}, f"guide.freeze_epoch must be <= 2147483647, got {BIG}"),
        ({"seed": -1}, "seed must be >= 0, got -1"),
        (optim(lr=0), "optim.lr must be > 0, got 0"),
        (optim(lr=math.nan), "optim.lr must be a finite number, got nan"),
        (optim(lr=math.inf), "optim.lr must be a finite number, got inf"),
        (optim(lr=5e-324), f"optim.lr: {IN_FLOAT32}, got 5e-324"),
        (optim(weight_decay=1e300), f"optim.weight_decay: {IN_FLOAT32}, got 1e+300"),
        (optim(beta1=1e-40), f"optim.beta1: {IN_FLOAT32}, got 1e-40"),
        (optim(beta2=1 - 1e-9), "optim.beta2: must be below 1, and is 1 in float32, got 0.999999999"),
        (
            {"estimator": {"name": "decoupled_st_gs", "temperature_forward": 1e300}},
            f"estimator.temperature_forward: {IN_FLOAT32}, got 1e+300",
        ),
        (
            {"estimator": {"name": "decoupled_st_gs", "temperature_backward_end": 1e-300}},
            f"estimator.temperature_backward_end: {IN_FLOAT32}, got 1e-300",
        ),
        ({"objective": {"kl_weight": 1e39}}, f"objective.kl_weight: {IN_FLOAT32}, got 1e+39"),
        (optim(lr="fast"), "optim.lr must be a number, got 'fast'"),
        (optim(beta2=1), "optim.beta2 must be < 1, got 1"),
        (
            optim(lr_rate=1),
            "optim: unknown field 'lr_rate'. Known: name, lr, beta1, beta2, eps, weight_decay.",
        ),
        ({"optim": "adam"}, "optim: must be a table with a 'name' (adam, adamw, radam), got 'adam'"),
        (
            {"optim": {"name": "adan"}},
            "optim: unknown optimizer 'adan'. Did you mean 'adam'? Known: adam, adamw, radam.",
        ),
        (
            {"estimator": {"name": "decoupled_st_gs", "temperature_forward": -1}},
            "estimator.temperature_forward must be > 0, got -1",
        ),
        ({"latent": {"family": "categorical", "categories": 1}}, "latent.categories must be >= 2, got 1"),
        (
            {"latent": {"family": "gausian"}},
            "latent: unknown latent family 'gausian'. "
            "Did you mean 'gaussian'? Known: bernoulli, categorical, gaussian.",
        ),
        (
            {"latent": {"family": "gaussian", "categories": 8}},
            "latent: unknown field 'categories'. Known: family, size.",
        ),
        (
            {"latent": LATENTS["gaussian"]},
            "estimator 'decoupled_st_gs' works on bernoulli or categorical latents, got 'gaussian'",
        ),
        ({"latent": {}}, "latent: must be a table with a 'family' (bernoulli, categorical, gaussian), got {}"),
        ({"encoder": {"name": "mlp", "hidden": [8, 0]}}, "encoder.hidden.1 must be >= 1, got 0"),
        ({"encoder": {"name": "mlp", "hidden": 8}}, "encoder.hidden must be a list, got 8"),
        ({"data": {"pixels": "grey"}}, "data.pixels must be 'dequantize', 'unit' or 'binarize', got 'grey'"),
        ({"data": "digits"}, "data must be a table of fields, got 'digits'"),
        ({"guide": {"freeze_epoch": 0}}, "guide.freeze_epoch must be >= 1, got 0"),
        (
            {"guide": {"likelihood": {"name": "bernoulli"}}},
            "guide needs likelihood 'gaussian_fixed' or 'gaussian_precision', got 'bernoulli'",
        ),
        (
            {"guide": {"likelihood": {"name": "gaussian_precision", "log_term": "exact"}}},
            "log_term 'exact' needs gaussian latents, got 'categorical'; use 'taylor'",
        ),
        (
            {"estimator": {"name": "silent"}},
            "estimator 'silent' needs a linear decoder, got 'mlp'; "
            "use decoder 'linear', or another estimator with a guide",
        ),
        (
            {
                "estimator": {"name": "silent"},
                "decoder": {"name": "linear"},
                "likelihood": {"name": "gaussian_log_scale"},
            },
            "estimator 'silent' needs likelihood 'gaussian_fixed' or 'gaussian_precision', got 'gaussian_log_scale'",
        ),
        (
            {"estimator": {"name": "rebar"}, "decoder": {"name": "strided"}},
            "estimator 'rebar' needs a decoder without batch normalization, got 'strided'",
        ),
        (
            {"likelihood": {"name": "bernoulli"}},
            "a bernoulli likelihood needs data.pixels 'unit' or 'binarize', got 'dequantize'",
        ),
        (
            {"likelihood": {"name": "gaussian_precision"}},
            "likelihood 'gaussian_precision' needs a linear decoder, got 'mlp'; use 'gaussian_log_scale'",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_refusals_in_one_line(changes, line):
    assert refused(**changes) == line


@pytest.mark.parametrize("value", [0.0, 1.2e-38, 3.4e38])
def test_what_float32_holds_is_accepted(value):
    config = member(objective={"kl_weight": value})
    assert config.objective.kl_weight == value
    assert float(torch.tensor(value, dtype=torch.float32)) == pytest.approx(value, rel=1e-6)


def test_refusals_that_list_many_choices():
    assert refused(estimator={"name": "silnt"}).startswith(
        "estimator: unknown estimator 'silnt'. Did you mean 'silent'?"
    )
    assert refused(data={"name": "digts"}).startswith("data.name: unknown data set 'digts'. Did you mean 'digits'?")
    assert refused(batchsize=3).startswith(
        "unknown field 'batchsize'. Did you mean 'batch_size'? Known: data, latent, "
    )


def test_a_missing_part_is_named():
    parts = member().model_dump()
    del parts["optim"]
    with pytest.raises(ValidationError) as info:
        TrainingConfig.model_validate(parts)
    assert explain(info.value) == "optim is required"


def test_not_a_configuration_at_all():
    with pytest.raises(ValidationError) as info:
        TrainingConfig.model_validate("quickstart")
    assert explain(info.value) == "a configuration must be a table of fields, got 'quickstart'"


def test_a_component_of_another_kind_is_refused():
    assert refused(decoder=ENCODERS["mlp"]).startswith("decoder: must be a table with a 'name' (")
    assert refused(latent=ENCODERS["mlp"]).startswith("latent: must be a table with a 'family' (")


@pytest.mark.parametrize("component", COMPONENTS, ids=lambda c: f"{type(c).__name__}")
def test_every_component_refuses_unknown_fields(component):
    with pytest.raises(ValidationError, match="unknown field 'nonsense'"):
        type(component).model_validate({"nonsense": 1})


@pytest.mark.parametrize("component", COMPONENTS, ids=lambda c: f"{type(c).__name__}")
def test_every_component_refuses_the_name_of_another(component):
    key = "family" if "family" in type(component).model_fields else "name"
    with pytest.raises(ValidationError, match=f"{key}\n.*'{getattr(component, key)}'"):
        type(component).model_validate({key: "nonsense"})


# --- shapes and knobs ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "part", [*COMPONENTS, member("gaussian", "silent"), member(**GUIDED)], ids=lambda p: type(p).__name__
)
def test_every_leaf_is_a_shape_or_a_knob(part):
    leaves = list(part.leaves())
    assert len(leaves) >= 1
    for _, value, role in leaves:
        assert role in (SHAPE, KNOB)
        assert not isinstance(value, Frozen)
        assert role is SHAPE or value is None or isinstance(value, int | float)


def test_an_unmarked_leaf_is_an_error():
    class Careless(Component):
        name: str = "careless"
        width: int = 3

    with pytest.raises(TypeError, match="annotate it with SHAPE or KNOB"):
        list(Careless().leaves())


def other(value: Any) -> Any:
    """A value of the same type that differs."""
    match value:
        case None:
            return 2
        case str():
            return value + "'"
        case tuple():
            return (*value, 1)
        case int():
            return value + 1
        case float():
            return value / 2 + 0.125
    raise AssertionError(f"how does one change {value!r}?")


def changed(part: Frozen, path: str) -> Any:
    """The configuration with another value, valid or not, at a dotted path."""
    head, _, rest = path.partition(".")
    value = getattr(part, head)
    return part.model_copy(update={head: changed(value, rest) if rest else other(value)})


CONFIGS = {
    "plain": member(),
    "categorical-guided": member(**GUIDED),
    "gaussian-exact": member("gaussian", "reparameterization", guide={"likelihood": {"name": "gaussian_precision"}}),
} | {f"estimator-{name}": member(sorted(e.families)[0], name) for name, e in sorted(ESTIMATORS.items())}


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")  # some of the changed values are not valid
@pytest.mark.parametrize("name", CONFIGS)
def test_every_leaf_is_in_the_key_and_only_shapes_are_in_the_shape_key(name):
    config = CONFIGS[name]
    roles = {path: role for path, _, role in config.leaves()}
    assert set(roles.values()) == {SHAPE, KNOB}
    for path, role in roles.items():
        variant = changed(config, path)
        assert [p for p in roles if variant.flat()[p] != config.flat()[p]] == [path]
        assert variant.key() != config.key(), path
        assert (variant.shape_key() != config.shape_key()) == (role is SHAPE), path


def test_components_and_guides_are_in_both_keys():
    variants = [
        member(),
        member(optim={"name": "adamw", "weight_decay": 0.0}),
        member(estimator="st_gumbel_softmax"),
        member("bernoulli"),
        member(**GUIDED),
        member(data={"pixels": "unit"}),
        member(encoder={"name": "mlp", "hidden": [12], "activation": "leaky_relu"}),
    ]
    assert len({config.key() for config in variants}) == len(variants)
    assert len({config.shape_key() for config in variants}) == len(variants)


def test_numbers_that_are_equal_have_one_key():
    assert member(optim={"name": "adam", "lr": 1}).key() == member(optim={"name": "adam", "lr": 1.0}).key()
    assert member(optim={"name": "adam"}).key() == member(optim={"name": "adam", "beta1": 0.9}).key()


GOLDEN = "67ff9de5d7875a0db2b93943"


def test_golden_key():
    # A changed key orphans every recorded training: change it only together with TRAINING_SEMANTICS.
    assert member(**GUIDED).key() == GOLDEN


@pytest.mark.parametrize(
    ("temperature", "scaling", "key"),
    [
        (1.0, "logits_and_noise", "3876c3f54dbf126944b47d31"),
        (0.3, "logits", "b0773b293f355dfd0c7d43c6"),
        (0.3, "logits_and_noise", "3a4380c49995f8e15594b800"),
    ],
)
def test_a_correction_changes_the_keys_of_those_that_it_corrects(temperature, scaling, key):
    """The last one had the key b1194d8cc0efb1571159d7ac while it was measured at another temperature."""
    estimator = {"name": "st_gumbel_softmax", "temperature": temperature, "scaling": scaling}
    assert member(estimator=estimator, diagnostics={"gradient_gap": [1]}).key() == key


def test_keys_are_the_same_in_a_fresh_process():
    code = (
        "import sys; from trainables.config import TrainingConfig\n"
        "config = TrainingConfig.model_validate_json(sys.argv[1])\n"
        "print(config.key(), config.shape_key())"
    )
    config = member(**GUIDED)
    printed = subprocess.run(
        [sys.executable, "-c", code, config.model_dump_json()], capture_output=True, text=True, check=True
    ).stdout.split()
    assert printed == [config.key(), config.shape_key()]


def test_survives_json_pickle_and_copies():
    for config in CONFIGS.values():
        for copied in (
            TrainingConfig.model_validate(config.model_dump()),
            TrainingConfig.model_validate(config.model_dump(mode="json")),
            TrainingConfig.model_validate_json(config.model_dump_json()),
            pickle.loads(pickle.dumps(config)),
            copy.deepcopy(config),
        ):
            assert copied == config
            assert copied.key() == config.key()


def test_knobs_are_numbers_by_path_without_the_seed():
    knobs = member(guide={}).knobs()
    assert knobs["optim.lr"] == 1e-3
    assert knobs["estimator.temperature_forward"] == 1.0
    assert knobs["guide.annealing_rate"] == 0.0
    assert knobs["guide.freeze_epoch"] == math.inf
    assert "seed" not in knobs
    assert all(isinstance(value, float) for value in knobs.values())
    assert knobs.keys() | {"seed"} == {path for path, _, role in member(guide={}).leaves() if role is KNOB}


def test_flat_holds_every_field_by_path():
    flat = member(seed=3).flat()
    assert flat["seed"] == 3
    assert flat["encoder.hidden"] == [12]
    assert flat["guide"] is None
    assert flat["latent.categories"] == 3
    assert list(flat) == [path for path, _, _ in member().leaves()]


def test_a_default_guide_is_the_standalone_silent_gradient():
    assert Guide() == Guide(likelihood=GaussianPrecision(), annealing_rate=0.0, freeze_epoch=None)


# --- registries ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", REGISTRIES)
def test_registered_names_are_those_of_the_components(kind):
    assert len(REGISTRIES[kind]) >= 2
    for name, component in REGISTRIES[kind].items():
        assert component.name == name


def test_registries_refuse_duplicates_and_list_choices():
    registry: Registry[int] = Registry("thing")
    registry.add("left", 1)
    registry.add("right", 2)
    with pytest.raises(ValueError, match="two things are named 'left'"):
        registry.add("left", 3)
    with pytest.raises(UnknownName) as info:
        registry["rihgt"]
    assert str(info.value) == "unknown thing 'rihgt'. Did you mean 'right'? Known: left, right."
    assert registry == {"left": 1, "right": 2}


def test_nothing_is_suggested_where_nothing_is_near():
    assert nearest("learning_rate", ["lr", "weight_decay"]) == ""
