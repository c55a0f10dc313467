"""The contract of `trainables.estimators.base`, run for every registered estimator on every family it supports."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pytest
import torch
from oracles import gradients, random_posterior, standard_noise
from pydantic import ValidationError
from torch import Tensor
from torch.func import vmap

from trainables.analytic import expected_log_likelihood
from trainables.components import KNOB, SHAPE, Component, FractionKnob, Name, OptionalPositiveKnob, PositiveKnob
from trainables.config import TrainingConfig
from trainables.estimators import ESTIMATORS, Estimator
from trainables.estimators.__main__ import table
from trainables.estimators.base import straight_through
from trainables.latents import FAMILIES, Latent

CASES = [(name, family) for name, e in sorted(ESTIMATORS.items()) for family in sorted(e.families)]
UNSUPPORTED = [(name, family) for name, e in sorted(ESTIMATORS.items()) for family in sorted(FAMILIES - e.families)]
LATENTS = {
    "gaussian": {"family": "gaussian", "size": 3},
    "bernoulli": {"family": "bernoulli", "size": 3},
    "categorical": {"family": "categorical", "size": 3, "categories": 4},
}
B, L, K, D = 8, 3, 4, 5
RELAXED_TOO = {"rebar"}
"""Draws a hard code, and looks at relaxed ones beside it."""
DRAWN_FROM_A_PART = {
    "gumbel_rao": lambda noise: noise[:1],
    "rebar": lambda noise: noise[:1],
    "disarm": lambda noise: torch.stack((noise, -noise)),
}
"""The noise of the codes that are drawn, if these are not simply all of it."""
KNOBS = [(name, family, path) for name, family in CASES for path, _, role in ESTIMATORS[name].leaves() if role is KNOB]


@dataclass
class LinearLoss:
    """The loss -log N(x; W z + b, 1), which has an analytic expectation; records the codes of its calls."""

    x: Tensor
    weight: Tensor
    bias: Tensor

    def __post_init__(self) -> None:
        self.codes: list[Tensor] = []

    def __call__(self, z: Tensor) -> Tensor:
        self.codes.append(z)
        if self.weight.dim() == 3:  # one-hot codes
            z = z.flatten(-2)
        residual = self.x - z @ self.weight.flatten(1).mT - self.bias
        return 0.5 * residual.square().sum(-1) + 0.5 * D * torch.log(torch.tensor(2 * torch.pi, dtype=self.x.dtype))

    def expected(self, q: Latent) -> Tensor:
        return -expected_log_likelihood(self.x, q, self.weight, self.bias, variance=1.0)


@dataclass
class Problem:
    """An estimator with its arguments."""

    estimator: Estimator
    loss: LinearLoss
    q: Latent
    noise: Tensor

    def surrogate(self, knobs: Mapping[str, Tensor] = {}) -> Tensor:
        return self.estimator(self.loss, self.q, self.noise, knobs)

    def gradients(self, knobs: Mapping[str, Tensor] = {}) -> tuple[Tensor, ...]:
        return gradients(self.surrogate(knobs), self.q)

    def gradients_in_training(self, knobs: Mapping[str, Tensor] = {}) -> list[Tensor]:
        """The gradients at the start, in the middle and at the end of a training, with its running loss."""
        given = {"running_loss": torch.tensor(2.0, dtype=torch.float64), **knobs}
        average = given["running_loss"] * self.estimator.running_loss_momentum(given)
        given["running_loss"] = average * self.estimator.uses_running_loss
        epochs = (given | self.estimator.scheduled(given, progress) for progress in (0.0, 0.5, 1.0))
        return [gradient for epoch in epochs for gradient in self.gradients(epoch)]

    def as_dtype(self, dtype: torch.dtype) -> "Problem":
        q = type(self.q)(*(p.detach().to(dtype).requires_grad_() for p in self.q.parameters))
        loss = LinearLoss(*(t.to(dtype) for t in (self.loss.x, self.loss.weight, self.loss.bias)))
        return Problem(self.estimator, loss, q, self.noise.to(dtype))


def problem(name: str, family: str, *, seed: int = 0, estimator: Estimator | None = None) -> Problem:
    estimator = estimator or ESTIMATORS[name]
    generator = torch.Generator().manual_seed(seed)
    q = random_posterior(family, B, L, K, generator)
    z_shape = tuple(q.parameters[0].shape[1:])

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=torch.float64, generator=generator)

    loss = LinearLoss(normal(B, D), normal(D, *z_shape), normal(D))
    return Problem(estimator, loss, q, standard_noise(family, estimator.noise_shape((B, *z_shape)), generator))


def config(estimator: dict | Estimator, latent: dict) -> TrainingConfig:
    return TrainingConfig.model_validate(
        {
            "latent": latent,
            "encoder": {"name": "mlp"},
            "decoder": {"name": "linear"},
            "likelihood": {"name": "gaussian_fixed"},
            "estimator": estimator,
            "optim": {"name": "adam"},
            "epochs": 3,
            "batch_size": 8,
        }
    )


@pytest.mark.parametrize(("name", "family"), CASES)
def test_surrogate_is_one_finite_number_an_image_and_every_parameter_learns(name, family):
    p = problem(name, family)
    assert p.surrogate().shape == (B,)
    assert p.surrogate().isfinite().all()
    for parameter, gradient in zip(p.q.parameters, p.gradients(), strict=True):
        assert gradient.shape == parameter.shape
        assert gradient.isfinite().all()
        assert gradient.abs().max() > 0


@pytest.mark.parametrize(("name", "family"), CASES)
def test_same_noise_same_result_and_arguments_are_left_alone(name, family):
    p = problem(name, family)
    before = [t.detach().clone() for t in (p.noise, *p.q.parameters)]
    value, gradient = p.surrogate(), p.gradients()
    torch.manual_seed(1)  # would change an estimator that uses the global generator
    assert torch.equal(p.surrogate(), value)
    assert all(map(torch.equal, p.gradients(), gradient))
    assert all(map(torch.equal, (p.noise, *p.q.parameters), before))


@pytest.mark.parametrize(("name", "family"), CASES)
def test_images_do_not_influence_each_other(name, family):
    p = problem(name, family)
    (first,) = torch.autograd.grad(p.surrogate()[0], p.q.parameters[:1])
    assert first[0].abs().max() > 0
    assert not first[1:].any()


@pytest.mark.parametrize(("name", "family"), [case for case in CASES if not ESTIMATORS[case[0]].analytic])
def test_codes_are_hard_draws(name, family):
    p = problem(name, family)
    p.surrogate()
    assert p.loss.codes
    hard = all(bool(((z == 0) | (z == 1)).all()) for z in p.loss.codes)
    assert hard == (family != "gaussian" and not ESTIMATORS[name].relaxes and name not in RELAXED_TOO)


@pytest.mark.parametrize(
    ("name", "family"),
    [case for case in CASES if ESTIMATORS[case[0]].bias != "exact" and not ESTIMATORS[case[0]].relaxes],
)
def test_value_is_the_mean_loss_at_the_draws(name, family):
    p = problem(name, family)
    several = p.noise.dim() > p.q.parameters[0].dim()
    draws = DRAWN_FROM_A_PART.get(name, lambda noise: noise if several else noise[None])(p.noise)
    torch.testing.assert_close(p.surrogate(), p.loss(p.estimator.sampled(p.q, {}).sample(draws)).mean(0))


@pytest.mark.parametrize(("name", "family"), CASES)
def test_gradient_of_the_decoder_is_that_of_the_value(name, family):
    p = problem(name, family)

    def value(weight: Tensor, bias: Tensor) -> Tensor:
        return p.estimator(LinearLoss(p.loss.x, weight, bias), p.q, p.noise)

    weight, bias = p.loss.weight.clone().requires_grad_(), p.loss.bias.clone().requires_grad_()
    assert torch.autograd.gradcheck(value, (weight, bias))


@pytest.mark.parametrize(("name", "family"), CASES)
def test_vmap_equals_the_loop_over_members(name, family):
    members = [problem(name, family, seed=seed) for seed in range(3)]
    paths = [path for path, _, role in ESTIMATORS[name].leaves() if role is KNOB] + ["running_loss"]
    knobs = [{path: torch.tensor(0.7 + 0.2 * i, dtype=torch.float64) for path in paths} for i in range(3)]

    def one(x, weight, bias, parameters, noise, knobs):
        return members[0].estimator(LinearLoss(x, weight, bias), type(members[0].q)(*parameters), noise, knobs)

    def stack(*tensors: Tensor) -> Tensor:
        return torch.stack(tensors)

    parameters = tuple(stack(*(m.q.parameters[i] for m in members)) for i in range(len(members[0].q.parameters)))
    stacked = vmap(one)(
        stack(*(m.loss.x for m in members)),
        stack(*(m.loss.weight for m in members)),
        stack(*(m.loss.bias for m in members)),
        parameters,
        stack(*(m.noise for m in members)),
        {path: stack(*(k[path] for k in knobs)) for path in knobs[0]},
    )
    packed = torch.autograd.grad(stacked.sum(), parameters)
    for i, member in enumerate(members):
        torch.testing.assert_close(stacked[i], member.surrogate(knobs[i]))
        for all_members, alone in zip(packed, member.gradients(knobs[i]), strict=True):
            torch.testing.assert_close(all_members[i], alone)


def check_knob(estimator: Estimator, family: str, path: str) -> None:
    """A knob changes the training as the field does. The call, the schedule or the running loss may read it."""
    field = problem("", family, estimator=estimator.model_copy(update={path: 0.4})).gradients_in_training()
    default = problem("", family, estimator=estimator)
    knob = default.gradients_in_training({path: torch.tensor(0.4, dtype=torch.float64)})
    assert all(map(torch.equal, knob, field)), f"with the knob {path!r} and with the field the gradients differ"
    assert not all(map(torch.equal, default.gradients_in_training(), field)), f"the knob {path!r} changes nothing"


@pytest.mark.parametrize(("name", "family", "path"), KNOBS)
def test_knobs_override_fields(name, family, path):
    check_knob(ESTIMATORS[name], family, path)


class Heated(Estimator):
    """A legal estimator: the call, the schedule and the running loss read one knob each; `wrong` breaks one."""

    name: Name = "heated"
    heat: PositiveKnob = 1.0
    heat_end: OptionalPositiveKnob = None
    memory: FractionKnob = 0.9
    wrong: Annotated[str, SHAPE] = ""
    bias = "biased"
    source = "a test"
    uses_running_loss = True

    def scheduled(self, knobs, progress):
        end = torch.tensor(self.heat_end or torch.inf) if self.wrong == "heat_end" else self.knob("heat_end", knobs)
        start = self.knob("heat", knobs)
        return {"heat": torch.where(end.isinf(), start, start + progress * (end - start))}

    def running_loss_momentum(self, knobs):
        return torch.tensor(0.9) if self.wrong == "memory" else self.knob("memory", knobs)

    def __call__(self, loss, q, noise, knobs={}):
        heat = 1.0 if self.wrong == "heat" else self.knob("heat", knobs)
        code = straight_through(q.sample(noise), heat * q.logits)
        return loss(code) * (1 + knobs.get("running_loss", 0.0))


@pytest.mark.parametrize("path", ["heat", "heat_end", "memory"])
def test_a_knob_may_be_read_by_the_call_the_schedule_or_the_running_loss(path):
    check_knob(Heated(), "bernoulli", path)


@pytest.mark.parametrize(
    ("path", "reason"), [("heat", "changes nothing"), ("heat_end", "differ"), ("memory", "changes nothing")]
)
def test_a_knob_that_nothing_reads_is_named(path, reason):
    with pytest.raises(AssertionError, match=f"the knob '{path}' .*{reason}"):
        check_knob(Heated(wrong=path), "bernoulli", path)


@pytest.mark.parametrize(("name", "family"), CASES)
def test_float32_stays_float32(name, family):
    p = problem(name, family).as_dtype(torch.float32)
    assert p.surrogate().dtype == torch.float32
    assert {gradient.dtype for gradient in p.gradients()} == {torch.float32}


@pytest.mark.parametrize(("name", "family"), [case for case in CASES if case[1] != "gaussian"])
def test_saturated_logits_have_finite_gradients_in_float32(name, family):
    p = problem(name, family).as_dtype(torch.float32)
    p.q = type(p.q)((p.q.parameters[0].detach() * 1e3).requires_grad_())
    assert p.surrogate().isfinite().all()
    assert all(gradient.isfinite().all() for gradient in p.gradients())


@pytest.mark.parametrize(("name", "family"), CASES)
def test_only_exact_estimators_have_no_variance(name, family):
    draws = []
    for seed in range(5):
        p = problem(name, family)
        p.noise = standard_noise(family, tuple(p.noise.shape), torch.Generator().manual_seed(seed))
        draws.append(p.gradients()[0])
    variance = (torch.stack(draws) - draws[0]).square().sum()
    assert (variance == 0) == (ESTIMATORS[name].bias == "exact")


def test_enumeration_and_silent_gradients_are_exact():
    assert {name: ESTIMATORS[name].bias for name in ("exact", "silent")} == {"exact": "exact", "silent": "exact"}


def test_the_label_of_silent_gradients_says_where_they_are_biased():
    (row,) = [line for line in table().splitlines() if line.startswith("| `silent` |")]
    assert row.split(" | ")[2] == 'exact; biased with a learned precision and `log_term` "taylor"'


@pytest.mark.parametrize("family", ["bernoulli", "categorical"])
def test_silent_gradients_are_exact(family):
    silent, exact = problem("silent", family), problem("exact", family)
    torch.testing.assert_close(silent.surrogate(), exact.surrogate(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(silent.gradients(), exact.gradients(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("name", "family"), CASES)
def test_round_trip_through_the_configuration(name, family):
    given = config({"name": name}, LATENTS[family])
    again = TrainingConfig.model_validate_json(given.model_dump_json())
    assert given.estimator == ESTIMATORS[name]
    assert type(again.estimator) is type(ESTIMATORS[name])
    assert again == given
    assert again.key() == given.key()


@pytest.mark.parametrize(("name", "family"), UNSUPPORTED)
def test_other_families_are_refused_by_the_configuration(name, family):
    with pytest.raises(ValidationError, match=f"estimator '{name}' works on .* latents, got '{family}'"):
        config({"name": name}, LATENTS[family])


@pytest.mark.parametrize("path", sorted({path for _, _, path in KNOBS if path.startswith("temperature")}))
def test_temperatures_are_positive(path):
    name = next(n for n, _, p in KNOBS if p == path)
    with pytest.raises(ValidationError, match=path):
        type(ESTIMATORS[name])(**{path: 0.0})


def test_every_field_is_a_shape_or_a_knob():
    assert all(len(list(e.leaves())) == len(type(e).model_fields) for e in ESTIMATORS.values())
    assert all(isinstance(e, Component) for e in ESTIMATORS.values())


def test_the_table_on_disk_is_that_of_the_estimators_in_the_repository(shipped):
    page = Path(__file__).parents[2] / "docs" / "estimators.md"
    assert len(shipped) >= 16
    assert page.read_text(encoding="utf-8") == table(shipped)


def test_the_table_has_every_registered_estimator():
    assert all(f"| `{name}` |" in table() for name in ESTIMATORS)


# --- exact: the limit on states ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("latent", "number"),
    [
        ({"family": "bernoulli", "size": 15}, "2**15"),
        ({"family": "bernoulli", "size": 100_000}, "2**100000"),
        ({"family": "categorical", "size": 5, "categories": 8}, "8**5"),
    ],
)
def test_exact_refuses_large_spaces_when_configured(latent, number):
    with pytest.raises(ValidationError, match=r"at most 2\*\*14 states, got " + number.replace("*", r"\*")):
        config({"name": "exact"}, latent)


@pytest.mark.parametrize(
    "latent", [{"family": "bernoulli", "size": 14}, {"family": "categorical", "size": 7, "categories": 4}]
)
def test_exact_accepts_spaces_up_to_the_limit(latent):
    assert config({"name": "exact"}, latent).estimator.name == "exact"


def test_exact_refuses_large_spaces_when_called():
    q = random_posterior("bernoulli", 1, 15, 2, torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match=r"got 2\*\*15"):
        ESTIMATORS["exact"](lambda z: z.sum(-1), q, torch.empty(0))


@pytest.mark.parametrize("name", ["rloo", "reinforce"])
def test_codes_of_score_functions_are_constants(name):
    """The gradient of the loss does not flow through a Gaussian code."""
    p, seen = problem(name, "gaussian"), []

    class Watched(LinearLoss):
        def __call__(self, z: Tensor) -> Tensor:
            seen.append(z.requires_grad)
            return super().__call__(z)

    p.loss = Watched(p.loss.x, p.loss.weight, p.loss.bias)
    assert p.surrogate({"running_loss": torch.tensor(1.0)}).requires_grad
    assert seen == [False]
