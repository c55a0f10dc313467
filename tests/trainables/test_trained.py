import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from members import member

from trainables.config import TrainingConfig
from trainables.data import load
from trainables.packing.cohort import EVALUATION_BATCH
from trainables.trained import CONFIG, WEIGHTS, TrainedVAE
from trainables.training import CohortTraining

SHAPE = (1, 8, 8)
VALIDATION = load("digits", Path("data")).validation
CASES = {
    "gaussian": [member("gaussian", "reparameterization", epochs=2, seed=s) for s in (3, 4)],
    "silent": [
        member("gaussian", "silent", likelihood={"name": "gaussian_precision"}, optim={"name": "adam", "lr": lr})
        for lr in (1e-3, 1e-2)
    ],
    "bits": [member("bernoulli", "disarm", likelihood={"name": "bernoulli"}, data={"pixels": "binarize"})],
    "forward temperature": [
        member(estimator={"name": "decoupled_st_gs", "temperature_forward": t}, data={"pixels": "unit"})
        for t in (0.3, 3.0)
    ],
    "guided": [member("gaussian", "reparameterization", guide={"annealing_rate": 0.1})],
}


def trained(configs: list[TrainingConfig]) -> CohortTraining:
    training = CohortTraining(configs, device="cpu", data_dir=Path("data"))
    for _ in training:
        pass
    return training


@pytest.mark.parametrize("configs", CASES.values(), ids=CASES)
def test_out_of_a_checkpoint_a_member_has_the_reported_kl_and_squared_error(configs, tmp_path):
    """The member is saved and loaded in between. Members differ in squared error, so wrong weights would be noticed."""
    training = trained(configs)
    reported = [result.metrics for result in training.results()]
    assert len({metrics["mse"] for metrics in reported}) == len(configs)
    for config, metrics in zip(configs, reported, strict=True):
        folder = tmp_path / config.key()
        folder.mkdir()
        TrainedVAE.from_checkpoint(training.checkpoint(), config, SHAPE).save(folder)
        vae = TrainedVAE.load(folder)
        assert vae.encode(VALIDATION).kl().mean().item() == pytest.approx(metrics["kl"], rel=1e-5)
        if config.data.pixels == "unit":  # else the noise of dequantization is needed, which is not accessible
            squared = (vae.reconstruct(VALIDATION) - torch.from_numpy(VALIDATION) / 255).square()
            assert squared.sum((1, 2, 3)).mean().item() == pytest.approx(metrics["mse"], rel=1e-5)


def test_batch_statistics_and_temperatures_are_those_of_the_last_epoch(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (60, 32, 32), np.uint8)
    np.savez(tmp_path / "own.npz", train_images=images[:40], validation_images=images[40:])
    config = member(
        estimator={"name": "decoupled_st_gs", "temperature_forward": 3.0, "temperature_forward_end": 0.3},
        encoder={"name": "strided", "channels": [2, 3, 4, 5]},
        data={"name": f"npz:{tmp_path / 'own.npz'}", "pixels": "unit"},
        epochs=3,
        batch_size=10,
    )
    training = trained([config])
    (result,) = training.results()
    vae = TrainedVAE.from_checkpoint(training.checkpoint(), config, (1, 32, 32))
    assert vae.encode(images[40:, None]).kl().mean().item() == pytest.approx(result.metrics["kl"], rel=1e-5)


@pytest.fixture(scope="module")
def vae() -> TrainedVAE:
    (config,) = CASES["bits"]
    return TrainedVAE.from_checkpoint(trained([config]).checkpoint(), config, SHAPE)


def test_seeds_choose_the_codes(vae):
    images = VALIDATION[:50]
    for call in (lambda seed: vae.reconstruct(images, seed=seed), lambda seed: vae.sample(50, seed=seed)):
        assert call(1).shape == (50, *SHAPE)
        assert torch.equal(call(1), call(1))
        assert not torch.equal(call(1), call(2))
        assert torch.equal(call(None), call(vae.config.seed))
        assert call(1).min() > 0
        assert call(1).max() < 1


def test_codes_sampled_are_of_the_prior(monkeypatch):
    families = ("gaussian", "bernoulli", "categorical")
    for family in families:
        config = member(family, "reparameterization" if family == "gaussian" else "reinforce")
        vae = TrainedVAE.from_checkpoint(trained([config]).checkpoint(), config, SHAPE)
        codes = []
        monkeypatch.setattr(vae, "decode", codes.append)
        vae.sample(20_000)
        (z,) = codes
        mean, variance = {"gaussian": (0, 1), "bernoulli": (1 / 2, 1 / 4), "categorical": (1 / 3, 2 / 9)}[family]
        assert (z.mean(0) - mean).abs().max() < 5 * math.sqrt(variance / len(z))
        assert (z.var(0) - variance).abs().max() < 5 * variance * math.sqrt(2 / len(z))


def test_many_images_are_taken_in_batches(vae):
    images = np.concatenate([VALIDATION] * 4)[: EVALUATION_BATCH + 100]
    assert vae.encode(images).logits.shape == (len(images), 3)
    torch.testing.assert_close(vae.encode(images[:1000]).logits, vae.encode(images).logits[:1000])
    assert vae.reconstruct(images).shape == images.shape


@pytest.mark.parametrize(
    "images", [VALIDATION / 255, VALIDATION[0], VALIDATION[:, :, :7], VALIDATION[:0]], ids=["float", "3-d", "H", "none"]
)
def test_other_images_are_refused(vae, images):
    with pytest.raises(ValueError, match=r"images must be uint8 \['N', 1, 8, 8\], got torch\."):
        vae.encode(images)


def test_what_is_damaged_is_refused(vae, tmp_path):
    vae.save(tmp_path)
    with pytest.raises(ValueError, match="is not in this checkpoint"):
        TrainedVAE.from_checkpoint(trained(CASES["guided"]).checkpoint(), vae.config, SHAPE)
    for name, content in [(WEIGHTS, b"?"), (CONFIG, b"{}"), (CONFIG, b"?")]:
        kept = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match="has no trained model"):
            TrainedVAE.load(tmp_path)
        (tmp_path / name).write_bytes(kept)
    text = (tmp_path / CONFIG).read_text()
    (tmp_path / CONFIG).write_text(text.replace('"size": 3', '"size": 4'))
    with pytest.raises(ValueError, match="has no trained model"):
        TrainedVAE.load(tmp_path)
    (tmp_path / CONFIG).unlink()
    with pytest.raises(FileNotFoundError):
        TrainedVAE.load(tmp_path)


def test_loading_uses_none_of_pytorchs_random_numbers(vae, tmp_path):
    vae.save(tmp_path)
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    TrainedVAE.load(tmp_path).sample(2)
    assert torch.equal(torch.rand(3), expected)


def test_a_fresh_process_loads_and_uses_a_model_in_three_lines(vae, tmp_path):
    vae.save(tmp_path)
    lines = [
        "from trainables.trained import TrainedVAE",
        f"vae = TrainedVAE.load({str(tmp_path)!r})",
        "print(vae.sample(4, seed=1).sum().item())",
    ]
    run = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=True)
    assert float(run.stdout) == pytest.approx(vae.sample(4, seed=1).sum().item(), rel=1e-5)
