"""Active units, codebook usage and codebook perplexity: cases made by hand, and trained members measured again."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from members import member
from torch.special import logit

from trainables.codes import code_metrics, code_sums
from trainables.data import Images
from trainables.latents import Bernoulli, Categorical, Gaussian, one_hot_argmax
from trainables.metrics import METRICS
from trainables.objective import VAE
from trainables.packing.cohort import Cohort
from trainables.trained import Description, TrainedVAE

PIXELS = np.random.default_rng(0).integers(0, 256, (60, 1, 4, 4), dtype=np.uint8)
IMAGES = Images(train=PIXELS[:20], validation=PIXELS[20:45], test=PIXELS[45:])


def measured(q, z, parts=1):
    """The metrics of one member, from sums over `parts` batches."""
    at = torch.arange(len(z)).tensor_split(parts)
    batches = [code_sums(type(q)(*(p[i] for p in q.parameters)), z[i]) for i in at]
    sums = {name: sum(batch[name] for batch in batches)[None] for name in batches[0]}
    return {name: value.item() for name, value in code_metrics(q.family, sums, len(z)).items()}


def bits(*probabilities):
    """Bits with these probabilities: a list for each latent, with a probability for each image."""
    return Bernoulli(logit(torch.tensor(probabilities, dtype=torch.float64)).T)


def one_hot(*codes):
    """Codes [B, L, 4]: a list for each latent, with a category for each image."""
    return torch.nn.functional.one_hot(torch.tensor(codes).T, 4).double()


# --- cases made by hand ----------------------------------------------------------------------------------------------


def test_bits():
    """One bit that copies the image, one that is always 1, one that is always random."""
    q = bits([0.0, 0.0, 1.0, 1.0], [1.0] * 4, [0.5] * 4)
    z = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1], [0, 1, 1, 0]]).T.double()
    assert measured(q, z) == pytest.approx(
        {"active_units": 1, "codebook_usage": (1 + 0.5 + 1) / 3, "codebook_perplexity": (2 + 1 + 2) / 3}
    )


def test_categories():
    """One latent that uses all four evenly, one that uses two, one that is collapsed to the uniform prior."""
    z = one_hot([0, 1, 2, 3], [0, 0, 3, 3], [2, 2, 2, 2])
    probabilities = z.clone()
    probabilities[:, 2] = 0.25
    q = Categorical(probabilities.log())
    assert measured(q, z) == pytest.approx(
        {"active_units": 2, "codebook_usage": (1 + 0.5 + 0.25) / 3, "codebook_perplexity": (4 + 2 + 4) / 3}
    )


def test_gaussians_have_active_units_alone():
    mean = torch.tensor([[0.0, 3.0, 1000.0], [0.3, 3.0, 1000.15]])
    q = Gaussian(mean, torch.zeros_like(mean))
    assert measured(q, mean) == {"active_units": 1}  # variances 0.0225, 0 and 0.0056


@pytest.mark.parametrize(("spread", "active"), [(0.099, 0), (0.101, 1)])
def test_a_latent_is_active_above_a_variance_of_a_hundredth(spread, active):
    q = bits([0.5 - spread, 0.5 + spread])
    assert measured(q, torch.ones(2, 1))["active_units"] == active


@pytest.mark.parametrize("spread", [0.099, 0.101])
def test_two_categories_count_as_a_bit(spread):
    bit = bits([0.5 - spread, 0.5 + spread, 0.5], [0.9, 0.2, 0.4])
    two = Categorical(torch.stack([bit.probs, 1 - bit.probs], -1).log())
    z = torch.tensor([[1, 1, 0], [1, 1, 1]]).T.double()
    assert measured(two, torch.stack([z, 1 - z], -1)) == pytest.approx(measured(bit, z), rel=1e-12)


def test_an_informative_latent_is_active_with_many_categories():
    """The variance of each single category is below the limit."""
    z = torch.eye(200).double()[:, None]
    assert z.var(0).max() < 0.01
    assert measured(Categorical(z.log()), z) == pytest.approx(
        {"active_units": 1, "codebook_usage": 1, "codebook_perplexity": 200}
    )


@pytest.mark.parametrize("family", [Bernoulli, Categorical, Gaussian])
def test_batches_add_up(family):
    torch.manual_seed(0)
    shape = (40, 6, 5) if family is Categorical else (40, 6)
    q = family(*(torch.randn(shape, dtype=torch.float64) for _ in range(1 + (family is Gaussian))))
    z = one_hot_argmax(torch.randn(shape)) if family is Categorical else (torch.randn(shape) > 1.5).float()
    assert measured(q, z, parts=7) == pytest.approx(measured(q, z), rel=1e-12)


# --- trained members -------------------------------------------------------------------------------------------------


TEMPERATURES = {"name": "decoupled_st_gs", "temperature_forward": 0.4, "temperature_backward": 1.0}
ESTIMATORS = {"gaussian": "reparameterization", "bernoulli": "straight_through", "categorical": TEMPERATURES}


@pytest.mark.parametrize("family", sorted(ESTIMATORS))
def test_trained_members_alone_and_packed_have_what_their_codes_say(family):
    adam = {"name": "adam", "lr": 0.03}
    configs = [member(family, ESTIMATORS[family], optim=adam, epochs=3, batch_size=5, seed=s) for s in range(3)]
    together = after_training(configs)
    for index, config in enumerate(configs):
        metrics = after_training([config])
        model = VAE(config, (1, 4, 4))
        model.load_state_dict(metrics.state[0])
        vae = TrainedVAE(Description(config=config, image_shape=(1, 4, 4), epoch=3), model)
        for split in ("validation", "test"):
            want = from_codes(vae, IMAGES.splits[split])
            for run, position in ((together, index), (metrics, 0)):
                got = {name: run.of[split][name][position] for name in want}
                assert got == pytest.approx(want, rel=1e-5)


@dataclass(frozen=True)
class After:
    of: dict  # metrics by split, each [M]
    state: list


def after_training(configs):
    cohort = Cohort(configs, IMAGES)
    metrics = [cohort.train_epoch() for _ in range(3)]
    state = [cohort.members.model_state(position) for position in range(len(configs))]
    return After({"validation": metrics[-1], "test": cohort.test_metrics()}, state)


def from_codes(model, images):
    """The metrics by NumPy, from the posteriors and codes of a trained model."""
    q, codes = model.encode(images), model.codes(images).numpy()
    if isinstance(q, Gaussian):
        return {"active_units": sum(np.var(mean) > 0.01 for mean in q.mean.double().numpy().T)}
    p = q.probs.double().numpy()
    if isinstance(q, Bernoulli):
        p, codes = np.stack([p, 1 - p], -1), np.stack([codes, 1 - codes], -1)
    used, perplexity, active = [], [], 0
    for latent in range(p.shape[1]):
        used.append(len(set(codes[:, latent].argmax(-1))) / p.shape[2])
        perplexity.append(math.exp(-sum(m * math.log(m) for m in p[:, latent].mean(0))))
        centred = p[:, latent] - p[:, latent].mean(0)
        active += (centred**2).sum() / len(p) / 2 > 0.01
    return {"active_units": active, "codebook_usage": np.mean(used), "codebook_perplexity": np.mean(perplexity)}


def test_they_are_described():
    names = ("active_units", "codebook_usage", "codebook_perplexity")
    assert [METRICS[name].title for name in names] == ["active units", "codebook usage", "codebook perplexity"]
    assert not any(METRICS[name].starred for name in names)
