"""Reconstructions and samples in the report, from checkpoints of real, tiny trainings."""

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scripted import BASE, row

from search_spaces.figures import Images
from search_spaces.space import Study, Sweep, Variants
from sweeps.analysis.cells import cells
from sweeps.planning.plan import Plan
from sweeps.records.checkpoints import trained_model
from sweeps.report import reconstructions
from sweeps.report.html import report
from sweeps.report.images import sheet
from sweeps.report.reconstructions import Sources, normalized
from trainables.training import CohortTraining

LEARNED = {"decoder": {"name": "mlp", "hidden": (8,)}, "likelihood": {"name": "gaussian_log_scale"}}
STUDY = Study(
    name="shown",
    title="Shown",
    source="nowhere",
    base=BASE | {"estimator": {"name": "reparameterization"}, "data": {"name": "digits", "limit": 64}},
    grid=(Variants("method", {"fixed": {}, "learned": LEARNED}),),
    seeds=(0, 1),
    compare=("method",),
    figures=(Images("method"), Images("method", samples=True)),
)
PLAN = Plan(Sweep("small", "Small", (STUDY,)))
MEMBERS = PLAN.members["shown"]


@pytest.fixture
def trained(storage):
    """Rows of all members, and checkpoints of the first method only; its best seed is 1."""
    rows = {m.key: row(m, metrics={"bits_per_dim": 2.0 - m.config.seed}) for m in MEMBERS}
    for name in ("fixed", "learned"):
        training = CohortTraining(
            [m.config for m in MEMBERS if m.labels["method"] == name], device="cpu", data_dir=Path("data")
        )
        for _ in training:
            pass
        storage.write(f"checkpoints/{name}/2.safetensors", training.checkpoint())
    return rows


def test_reconstructions_have_means_and_learned_deviations_of_the_best_members(storage, trained, monkeypatch):
    shown = []
    monkeypatch.setattr(reconstructions, "sheet", lambda rows: shown.append(rows) or sheet(rows))
    files = report(PLAN, MEMBERS, trained, sources=Sources(storage, Path("data")))
    means, samples = shown
    assert list(means) == ["validation images", "fixed", "learned", "learned, standard deviation"]
    assert list(samples) == ["fixed", "learned"]
    assert {images.shape for images in (*means.values(), *samples.values())} == {(10, 1, 8, 8)}
    deviations = means["learned, standard deviation"]
    np.testing.assert_array_equal([deviations.min(), deviations.max()], [0, 1])
    for index in ("1", "2"):
        assert min(Image.open(io.BytesIO(files[f"figures/shown-figure{index}.png"])).size) > 100
        assert files[f"figures/shown-figure{index}.pdf"].startswith(b"%PDF")


def test_the_images_are_those_of_the_best_seed(storage, trained):
    best = next(m for m in MEMBERS if m.labels == {"method": "fixed"} and m.config.seed == 1)
    found = cells(STUDY, MEMBERS, trained)
    rows, missing = reconstructions._rows(STUDY, STUDY.figures[0], found, Sources(storage, Path("data")))
    assert missing == []
    vae = trained_model(storage, best.config, trained[best.key].epochs, (1, 8, 8))
    images = (rows["validation images"] * 255).round().astype(np.uint8)
    np.testing.assert_allclose(rows["fixed"], vae.reconstruct(images).numpy(), atol=1e-6)


def test_a_checkpoint_that_is_gone_costs_its_row_and_says_so(storage, trained):
    storage.delete("checkpoints/learned/2.safetensors")
    files = report(PLAN, MEMBERS, trained, sources=Sources(storage, Path("data")))
    page = files["index.html"].decode()
    assert "no images for learned: no checkpoint has the weights of member" in page
    assert "figures/shown-figure1.png" in files


def test_a_data_set_that_is_gone_costs_the_figure_and_says_so(storage, trained, tmp_path):
    study = dataclasses.replace(STUDY, base=STUDY.base | {"data": {"name": "mnist"}})
    plan = Plan(Sweep("small", "Small", (study,)))
    rows = {m.key: row(m) for m in plan.members["shown"]}
    files = report(plan, plan.members["shown"], rows, sources=Sources(storage, tmp_path))
    assert not any(path.startswith("figures/") for path in files)
    assert "Shown: no images for fixed:" in files["index.html"].decode()


def test_deviations_are_stretched_within_each_image():
    images = np.array([[[[1.0, 3.0]]], [[[5.0, 5.0]]]])
    np.testing.assert_array_equal(normalized(images), [[[[0.0, 1.0]]], [[[0.0, 0.0]]]])
