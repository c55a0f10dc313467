"""Cohorts compared with plain PyTorch, and members compared in different cohorts."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from members import assert_alike, member, trained
from torch import Tensor, nn
from torch import distributions as D
from torch.nn import functional as F
from torch.testing import assert_close
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from trainables.components import FractionKnob, Name
from trainables.config import TrainingConfig
from trainables.data import Images, load
from trainables.estimators import ESTIMATORS, Estimator
from trainables.estimators.score_function import Reinforce
from trainables.packing.cohort import Cohort
from trainables.streams import Purpose, Streams

DIGITS = load("digits", Path("nowhere"))
FEW = Images(train=DIGITS.train[:50], validation=DIGITS.validation[:30])
SOME = Images(train=DIGITS.train[:300], validation=DIGITS.validation[:100])
PIXELS = 64


# --- one member against a plain loop ---------------------------------------------------------------------------------
#
# Written from the papers with `nn.Module`, `torch.optim` and `torch.distributions`. It uses only the random numbers of
# the code under test.


class Plain:
    """One training in float64. `loss` maps (x, encoder output, decoder, noise, running) to nats per image [B]."""

    def __init__(self, config: TrainingConfig, widths: tuple[int, int], outputs: int, linear: bool, loss, optimizer):
        features, code = widths
        torch.manual_seed(config.seed)
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(PIXELS, 12), nn.ReLU(), nn.Linear(12, features))
        if linear:
            self.decoder = nn.Linear(code, PIXELS)
        else:
            self.decoder = nn.Sequential(nn.Linear(code, 10), nn.ReLU(), nn.Linear(10, outputs * PIXELS))
            for parameter in self.decoder[-1].parameters():
                nn.init.zeros_(parameter[PIXELS:])  # the log-scale, if there is one
        self.encoder, self.decoder = self.encoder.double(), self.decoder.double()
        self.parameters = [*self.encoder.parameters(), *self.decoder.parameters()]
        self.optimizer = optimizer(self.parameters)
        self.config, self.loss = config, loss
        self.streams = Streams([config.seed], dtype=torch.float64)
        self.running = 0.0, 0.0

    def epoch(self, images: np.ndarray, epoch: int, noise_kind: str) -> float:
        """Mean loss over the images of one epoch."""
        order = self.streams.permutation(len(images), Purpose.ORDER, epoch=epoch)[0].numpy()
        total = 0.0
        for step, start in enumerate(range(0, len(images), self.config.batch_size)):
            batch = torch.from_numpy(images[order[start : start + self.config.batch_size]])
            at = {"epoch": epoch, "step": step}
            u = self.streams.uniform_coarse(tuple(batch.shape), Purpose.PIXELS, **at)[0]
            x = (batch.double() + u) / 256
            shape = (len(batch), *self.config.latent.z_shape)
            noise = getattr(self.streams, noise_kind)(shape, Purpose.LATENT, **at)[0]
            reconstruction, kl, value = self.loss(x.flatten(1), self.encoder(x), self.decoder, noise, self.running)
            objective = (reconstruction + kl).mean()
            self.optimizer.zero_grad()
            objective.backward()
            self.optimizer.step()
            mean, weight = self.running
            self.running = 0.9 * mean + 0.1 * value.mean().item(), 0.9 * weight + 0.1
            total += (value + kl).mean().item() * len(batch)
        return total / len(images)


def normal_nats(x: Tensor, mean: Tensor, variance: float) -> Tensor:
    return -D.Normal(mean, variance**0.5).log_prob(x).sum(-1)


def reparameterized(x, encoded, decoder, noise, running):
    mean, log_variance = encoded.chunk(2, -1)
    q = D.Normal(mean, (log_variance / 2).exp())
    value = normal_nats(x, decoder(q.mean + q.stddev * noise), 0.05)
    return value, D.kl_divergence(q, D.Normal(0.0, 1.0)).sum(-1), value.detach()


def silent(x, encoded, decoder, noise, running):
    mean, log_variance = encoded.chunk(2, -1)
    q = D.Normal(mean, (log_variance / 2).exp())
    spread = log_variance.exp() @ decoder.weight.square().T  # SG section 3.1: E (x-u)^2 = (x - E u)^2 + Var u
    value = normal_nats(x, decoder(mean), 0.05) + spread.sum(-1) / (2 * 0.05)
    return value, D.kl_divergence(q, D.Normal(0.0, 1.0)).sum(-1), value.detach()


def relaxed_bits(x, encoded, decoder, noise, running):
    q = D.Bernoulli(logits=encoded)
    output = decoder(torch.sigmoid((encoded + noise) / 0.7)).unflatten(-1, (2, PIXELS))
    value = -D.Normal(output[:, 0], output[:, 1].exp()).log_prob(x).sum(-1)
    return value, D.kl_divergence(q, D.Bernoulli(torch.tensor(0.5))).sum(-1), value.detach()


def decoupled(x, encoded, decoder, noise, running):
    logits = encoded.unflatten(-1, (2, 3))
    hard = F.one_hot((logits / 0.5 + noise).argmax(-1), 3).double()
    soft = F.softmax(logits / 2.0 + noise, dim=-1)
    value = normal_nats(x, decoder((hard + soft - soft.detach()).flatten(1)), 0.05)
    q = D.Categorical(logits=logits)
    return value, D.kl_divergence(q, D.Categorical(logits=torch.zeros(2, 3).double())).sum(-1), value.detach()


def reinforced(x, encoded, decoder, noise, running):
    q = D.Bernoulli(logits=encoded)
    bits = (encoded + noise > 0).double()
    value = normal_nats(x, decoder(bits), 0.05)
    baseline = running[0] / running[1] if running[1] else 0.0
    surrogate = value + (value.detach() - baseline) * q.log_prob(bits).sum(-1)
    return surrogate, D.kl_divergence(q, D.Bernoulli(torch.tensor(0.5))).sum(-1), value.detach()


def adam(p):
    return torch.optim.Adam(p, lr=1e-3)


def adamw(p):
    return torch.optim.AdamW(p, lr=3e-3, betas=(0.9, 0.95), weight_decay=0.1)


def radam(p):
    return torch.optim.RAdam(p, lr=2e-3, betas=(0.9, 0.9))


LOG_SCALE = {"likelihood": {"name": "gaussian_log_scale"}}
ADAMW = {"optim": {"name": "adamw", "lr": 3e-3, "beta2": 0.95, "weight_decay": 0.1}}
RADAM = {"optim": {"name": "radam", "lr": 2e-3, "beta2": 0.9}}
TEMPERATURES = {"name": "decoupled_st_gs", "temperature_forward": 0.5, "temperature_backward": 2.0}
PLAIN = {
    "reparameterization": (member("gaussian", "reparameterization"), (6, 3), 1, False, reparameterized, adam, "normal"),
    "silent": (member("gaussian", "silent", **ADAMW), (6, 3), 1, True, silent, adamw, "normal"),
    "gumbel_softmax": (
        member("bernoulli", {"name": "gumbel_softmax", "temperature": 0.7}, **LOG_SCALE),
        (3, 3),
        2,
        False,
        relaxed_bits,
        adam,
        "logistic",
    ),
    "decoupled_st_gs": (member("categorical", TEMPERATURES, **RADAM), (6, 6), 1, False, decoupled, radam, "gumbel"),
    "reinforce": (member("bernoulli", "reinforce"), (3, 3), 1, False, reinforced, adam, "logistic"),
}


@pytest.mark.parametrize("name", sorted(PLAIN))
@pytest.mark.parametrize("company", [1, 3])
def test_training_is_that_of_a_plain_loop(name, company):
    config, *arguments, noise_kind = PLAIN[name]
    config = config.model_copy(update={"batch_size": 16, "seed": 4, "epochs": 3})
    others = [config.model_copy(update={"seed": seed}) for seed in range(company - 1)]
    cohort = Cohort([*others, config], FEW, dtype=torch.float64)
    plain = Plain(config, *arguments)
    before = [p.detach().clone() for p in plain.parameters]
    for epoch in (1, 2, 3):
        loss = plain.epoch(FEW.train, epoch, noise_kind)
        metrics = cohort.train_epoch()
        assert metrics["train_loss"][-1] == pytest.approx(loss, rel=1e-9)
    state = cohort.members.model_state(company - 1)
    assert len(state) == len(plain.parameters)
    for (path, got), want, start in zip(state.items(), plain.parameters, before, strict=True):
        assert_close(got, want.detach(), rtol=1e-9, atol=1e-9 * want.abs().max().item(), msg=path)
        assert not torch.equal(got, start)


# --- evaluation against a plain loop ---------------------------------------------------------------------------------


def evaluated(config: TrainingConfig, state: dict[str, Tensor], temperature: float, images: np.ndarray) -> dict:
    """Metrics of one member with categorical latents 2 x 3 from its `state_dict`."""
    streams = Streams([config.seed], dtype=torch.float64)
    at = {"epoch": 0, "step": 0}
    u = streams.uniform_coarse(images.shape, Purpose.EVALUATION_PIXELS, **at)[0]
    x = ((torch.from_numpy(images).double() + u) / 256).flatten(1)
    noise = streams.gumbel((len(images), 2, 3), Purpose.EVALUATION_LATENT, **at)[0]
    hidden = F.relu(F.linear(x, state["encoder.1.weight"], state["encoder.1.bias"]))
    logits = F.linear(hidden, state["encoder.3.weight"], state["encoder.3.bias"]).unflatten(-1, (2, 3))
    q = D.Categorical(logits=logits / temperature)  # the sampled distribution
    z = F.one_hot((logits / temperature + noise).argmax(-1), 3).double().flatten(1)
    hidden = F.relu(F.linear(z, state["decoder.0.weight"], state["decoder.0.bias"]))
    mean = F.linear(hidden, state["decoder.2.weight"], state["decoder.2.bias"])
    kl = D.kl_divergence(q, D.Categorical(logits=torch.zeros(2, 3).double())).sum(-1)
    elbo = (D.Normal(mean, 0.05**0.5).log_prob(x).sum(-1) - kl).mean()
    squared = (x - mean).square().sum(-1).mean()
    return {
        "elbo": elbo.item(),
        "bits_per_dim": -elbo.item() / (PIXELS * math.log(2)) + 8,
        "kl": kl.mean().item(),
        "mse": squared.item(),
        "mse_per_pixel": squared.item() / PIXELS,
        "saturated": (q.probs.amax(-1) > 0.99).double().mean().item(),
        "active_units": (np.var(q.probs.numpy(), axis=0).sum(-1) / 2 > 0.01).sum(),
        "codebook_usage": np.mean([len(np.unique(code)) / 3 for code in z.unflatten(1, (2, 3)).argmax(-1).T]),
        "codebook_perplexity": D.Categorical(probs=q.probs.mean(0)).perplexity().mean().item(),
    }


def test_evaluation_is_that_of_a_plain_loop():
    configs = [
        member("categorical", TEMPERATURES | {"temperature_forward": t}, optim={"name": "adam", "lr": 0.03}, seed=seed)
        for seed, t in enumerate((0.3, 1.0, 3.0))
    ]
    cohort = Cohort(configs, SOME, dtype=torch.float64)
    metrics = cohort.train_epoch()
    for index, (config, temperature) in enumerate(zip(configs, (0.3, 1.0, 3.0), strict=True)):
        want = evaluated(config, cohort.members.model_state(index), temperature, SOME.validation)
        assert want.keys() == metrics.keys() - {"train_loss"}
        assert {name: metrics[name][index] for name in want} == pytest.approx(want, rel=1e-10)
    # At another temperature than the sampled one the KL differs.
    wrong = evaluated(configs[0], cohort.members.model_state(0), 1.0, SOME.validation)
    assert metrics["kl"][0] != pytest.approx(wrong["kl"], rel=1e-2)


def test_evaluation_does_not_depend_on_its_batch(monkeypatch):
    def metrics() -> dict[str, np.ndarray]:
        return Cohort([member(data={"pixels": "unit"})], SOME, dtype=torch.float64).train_epoch()

    whole = metrics()["kl"]
    monkeypatch.setattr("trainables.packing.cohort.EVALUATION_BATCH", 30)
    np.testing.assert_allclose(metrics()["kl"], whole, rtol=1e-12)


@pytest.mark.parametrize(("pixels", "offset"), [("dequantize", 8.0), ("unit", 0.0), ("binarize", 0.0)])
def test_bits_per_dim(pixels, offset):
    metrics = Cohort([member(data={"pixels": pixels})], FEW).train_epoch()
    want = -metrics["elbo"] / (PIXELS * math.log(2)) + offset
    np.testing.assert_allclose(metrics["bits_per_dim"], want, rtol=1e-6)


# --- a member in different cohorts -----------------------------------------------------------------------------------

CONV = {"encoder": {"name": "conv3", "channels": 4}}


def three(family: str, estimator: str, **changes) -> list[TrainingConfig]:
    """Members of one shape that differ in seed and learning rate."""
    return [
        member(family, estimator, batch_size=50, optim={"name": "adam", "lr": lr}, seed=seed, **changes)
        for seed, lr in ((0, 1e-3), (1, 3e-3), (2, 1e-4))
    ]


@pytest.mark.parametrize(
    ("family", "estimator"),
    [("gaussian", "reparameterization"), ("bernoulli", "gumbel_softmax"), ("categorical", "decoupled_st_gs")],
)
def test_a_convolutional_member_is_the_same_alone_packed_and_in_turn(family, estimator):
    configs = three(family, estimator, **CONV)
    packed, in_turn = trained(configs, 1, SOME, packed=True), trained(configs, 1, SOME)
    for config, first, second in zip(configs, packed, in_turn, strict=True):
        (alone,) = trained([config], 1, SOME)
        assert_alike(first, alone, 1e-4)
        assert second[0] == alone[0]
        assert all(torch.equal(second[1][name], value) for name, value in alone[1].items())
    with pytest.raises(AssertionError):  # the comparison can fail
        assert_alike(packed[0], packed[1], 1e-4)


# --- members kept ----------------------------------------------------------------------------------------------------

COLOURED = np.random.default_rng(0).integers(0, 256, (40, 3, 32, 32), dtype=np.uint8)
STRIDED = Images(train=COLOURED[:30], validation=COLOURED[30:])
KEPT = {
    "categorical": (three("categorical", "decoupled_st_gs"), SOME, {}),
    "running baseline": (three("bernoulli", "reinforce"), SOME, {}),
    "guide": (three("gaussian", "reparameterization", guide={"annealing_rate": 0.4, "freeze_epoch": 2}), SOME, {}),
    "linear decoder": (three("bernoulli", "silent"), SOME, {}),
    "temperature schedule": (
        three("categorical", {"name": "decoupled_st_gs", "temperature_forward_end": 0.3}, epochs=4),
        SOME,
        {},
    ),
    "convolutions, packed": (three("gaussian", "reparameterization", **CONV), FEW, {"packed": True}),
    "convolutions, in turn": (three("gaussian", "reparameterization", **CONV), FEW, {"packed": False}),
    "batch normalization": (
        three(
            "gaussian",
            "reparameterization",
            encoder={"name": "strided", "channels": (2, 3, 4, 5)},
            decoder={"name": "strided", "channels": (5, 4, 3, 2)},
        ),
        STRIDED,
        {"packed": True},
    ),
}


@pytest.mark.parametrize("members", [[2, 0], [1]], ids=str)
@pytest.mark.parametrize("name", sorted(KEPT))
def test_members_that_are_kept_go_on_as_if_nothing_had_happened(name, members):
    configs, images, options = KEPT[name]
    whole, kept = (Cohort(configs, images, dtype=torch.float64, **options) for _ in range(2))
    for cohort in (whole, kept):
        cohort.train_epoch()
        cohort.train_epoch()
    kept.keep(members)
    for _ in range(2):
        want, got = whole.train_epoch(), kept.train_epoch()
        assert {n: v.tolist() for n, v in got.items()} == {
            n: pytest.approx(v[members].tolist(), rel=1e-9, abs=1e-12) for n, v in want.items()
        }
    (dropped, *_) = set(range(3)) - set(members)
    for position, index in enumerate(members):
        ours = kept.members.model_state(position)
        assert_close(ours, whole.members.model_state(index), rtol=1e-8, atol=1e-10)
        with pytest.raises(AssertionError):  # the comparison can fail
            assert_close(ours, whole.members.model_state(dropped), rtol=1e-8, atol=1e-10)


def epoch_flops(cohort: Cohort) -> int:
    """Floating-point operations of the next epoch, in matrix products and convolutions."""
    with FlopCounterMode(display=False) as counter:
        cohort.train_epoch()
    return counter.get_total_flops()


@pytest.mark.parametrize("name", sorted(KEPT))
def test_members_that_are_dropped_cost_nothing(name):
    configs, images, options = KEPT[name]
    whole, kept, fewer, alone = (Cohort(configs[:size], images, **options) for size in (3, 3, 2, 1))
    kept.keep([2, 0])
    each = epoch_flops(alone)
    assert epoch_flops(kept) == epoch_flops(fewer) >= 2 * each > 0
    assert epoch_flops(whole) >= 3 * each
    kept.keep([1])
    assert epoch_flops(kept) == epoch_flops(alone)


def test_what_divergence_and_state_say_follows_the_members_kept():
    first, second, third = three("categorical", "decoupled_st_gs")
    cohort = Cohort(
        [first, second.model_copy(update={"optim": second.optim.model_copy(update={"lr": 1e30})}), third], FEW
    )
    cohort.train_epoch()
    states = [cohort.members.model_state(index) for index in range(3)]
    cohort.keep([2, 1])
    assert len(cohort) == 2
    assert cohort.diverged_epoch == [None, 1]
    assert torch.equal(cohort.members.model_state(0)["encoder.1.weight"], states[2]["encoder.1.weight"])
    assert {len(value) for value in cohort.members.state().values()} == {2}


@pytest.mark.parametrize("members", [[], [0, 0], [3], [-1], [0, 1, 2, 3]], ids=str)
def test_refuses_to_keep_what_is_not_there(members):
    cohort = Cohort(three("categorical", "decoupled_st_gs"), FEW)
    with pytest.raises(ValueError, match="different members out of 3"):
        cohort.keep(members)
    assert len(cohort) == 3


# --- divergence ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "packed"), [({}, True), ({}, False), (CONV, True)], ids=["mlp", "mlp in turn", "conv"]
)
@pytest.mark.parametrize(
    ("family", "estimator"),
    [
        ("gaussian", "reparameterization"),
        ("gaussian", "silent"),
        ("bernoulli", "reinforce"),
        ("categorical", "decoupled_st_gs"),
    ],
)
def test_a_diverged_member_is_masked_and_harms_nobody(family, estimator, changes, packed):
    healthy = three(family, estimator, **changes)
    broken = [
        healthy[0],
        healthy[1].model_copy(update={"optim": healthy[1].optim.model_copy(update={"lr": 1e30})}),
        healthy[2],
    ]
    cohorts = [Cohort(configs, SOME, packed=packed) for configs in (healthy, broken)]
    for _ in range(2):
        well, ill = (cohort.train_epoch() for cohort in cohorts)
        for name in well:
            assert np.array_equal(well[name][[0, 2]], ill[name][[0, 2]])
            assert np.isnan(ill[name][1])
    assert cohorts[0].diverged_epoch == [None, None, None]
    assert cohorts[1].diverged_epoch == [None, 1, None]
    for index in (0, 2):
        ours, theirs = (cohort.members.model_state(index) for cohort in cohorts)
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_member_stays_diverged_and_its_epoch_is_the_first():
    config = member(epochs=3)
    cohort = Cohort([config, config.model_copy(update={"seed": 1})], FEW)
    cohort.train_epoch()
    cohort.members.groups["decoder"].flat[1, 0] = torch.nan
    cohort.train_epoch()
    cohort.members.groups["decoder"].flat[1] = 0.0
    cohort.members.groups["encoder"].flat[1] = 0.0
    for group in cohort.members.groups.values():
        group.mean[1], group.square[1] = 0.0, 0.0
    metrics = cohort.train_epoch()
    assert cohort.diverged_epoch == [None, 2]
    assert np.isnan(metrics["elbo"][1])
    assert np.isfinite(metrics["elbo"][0])


def test_an_estimator_without_a_field_for_the_momentum_has_the_running_loss_of_reinforce(monkeypatch):
    class Plain(Estimator):
        name: Name = "plain"
        bias = "unbiased"
        source = "a test"
        uses_running_loss = True
        __call__ = Reinforce.__call__

    monkeypatch.setitem(ESTIMATORS, "plain", Plain())
    plain, reinforce = (Cohort([member("bernoulli", name)], FEW) for name in ("plain", "reinforce"))
    for _ in range(2):
        assert plain.train_epoch() == reinforce.train_epoch()
    assert plain.members.running_loss.item() > 0


def test_an_estimator_chooses_the_momentum_of_its_running_loss(monkeypatch):
    class Remembering(Estimator):
        name: Name = "remembering"
        memory: FractionKnob = 0.9
        bias = "unbiased"
        source = "a test"
        uses_running_loss = True
        __call__ = Reinforce.__call__

        def running_loss_momentum(self, knobs):
            return self.knob("memory", knobs)

    monkeypatch.setitem(ESTIMATORS, "remembering", Remembering())
    momenta = (0.5, 0.9)
    own = Cohort([member("bernoulli", {"name": "remembering", "memory": m}) for m in momenta], SOME)
    known = Cohort([member("bernoulli", {"name": "reinforce", "baseline_momentum": m}) for m in momenta], SOME)
    for _ in range(2):
        own.train_epoch()
        known.train_epoch()
    assert torch.equal(own.members.running_loss, known.members.running_loss)
    assert own.members.running_loss[0] != own.members.running_loss[1]


def test_no_step_keeps_the_graphs_of_earlier_steps():
    cohort = Cohort([member("bernoulli", "reinforce")], FEW)
    cohort.train_epoch()
    assert not any(tensor.requires_grad for tensor in tree_leaves(cohort.members.of(slice(None))))


# --- construction ----------------------------------------------------------------------------------------------------


def test_refuses_members_of_different_shapes_and_none():
    for configs in ([], [member(), member(batch_size=100)]):
        with pytest.raises(ValueError, match="members of one shape"):
            Cohort(configs, FEW)


def test_building_a_cohort_leaves_the_global_random_state_alone():
    torch.manual_seed(5)
    want = torch.rand(3)
    torch.manual_seed(5)
    Cohort([member()], FEW).train_epoch()
    assert torch.equal(torch.rand(3), want)


def test_members_that_differ_in_their_estimator_start_from_the_same_weights():
    first, second = (
        Cohort([member(estimator=name)], FEW).members.model_state(0) for name in ("reinforce", "decoupled_st_gs")
    )
    other = Cohort([member(seed=1)], FEW).members.model_state(0)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first)


def test_member_state_is_a_state_dict_of_the_model():
    cohort = Cohort([member(guide={})], FEW)
    cohort._model.load_state_dict(cohort.members.model_state(0), strict=True)


@pytest.mark.parametrize(("hidden", "turns"), [((8,), 1), ((2000, 200), 3)])
def test_on_a_cpu_small_members_are_packed_and_large_ones_trained_in_turn(hidden, turns):
    members = [member(encoder={"name": "mlp", "hidden": hidden}, seed=seed) for seed in range(3)]
    assert len(Cohort(members, load("digits", Path("data")))._stacks) == turns


@pytest.mark.parametrize("likelihood", ["gaussian_fixed", "bernoulli"])
def test_metrics_of_a_split_are_of_its_images_and_of_the_mean_pixel(likelihood):
    """If all pixels have the same mean, the squared error follows from the images alone."""
    pixels = np.random.default_rng(0).integers(0, 256, (30, 1, 4, 4)).astype(np.uint8)
    parts = Images(train=pixels[:10], validation=pixels[10:22] // 2, test=pixels[22:] // 4)
    own = member("bernoulli", "reinforce", data={"pixels": "unit"}, likelihood={"name": likelihood})
    cohort = Cohort([own], parts, dtype=torch.float64)
    for name, value in cohort.members.tensors().items():
        if name.startswith("decoder."):
            value.zero_()
            if name.endswith("2.bias"):
                value.fill_(0.3)
    mean = 0.3 if likelihood == "gaussian_fixed" else 1 / (1 + np.exp(-0.3))
    knobs = cohort._knobs
    for split, metrics in (("validation", cohort._evaluate(knobs)), ("test", cohort.test_metrics())):
        expected = np.square(parts.splits[split] / 255 - mean).sum((1, 2, 3)).mean()
        assert float(metrics["mse"][0]) == pytest.approx(expected, rel=1e-9), split
        assert float(metrics["mse_per_pixel"][0]) == pytest.approx(expected / 16, rel=1e-9)
