"""Draws reconstructions and samples of the best members from their checkpoints (Silent Gradients, Figures 2 to 5)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from search_spaces.figures import Images
from search_spaces.space import Study
from sweeps.analysis.cells import Cell, groups, standing
from sweeps.analysis.labels import label, readable
from sweeps.planning.plan import Member
from sweeps.records.checkpoints import NoModelError, trained_model
from sweeps.records.storage import Storage
from sweeps.report.drawing import Drawing
from sweeps.report.images import sheet
from sweeps.report.panels import panels
from trainables.data import DataError, load

SHOWN = 10
"""Images in a row."""
_RECONSTRUCTIONS = (
    "validation images, the means of their reconstructions and, if learned, the standard deviations (each image on its "
    "own scale)"
)


@dataclass(frozen=True)
class Sources:
    """The places of members' checkpoints and of their data sets."""

    storage: Storage
    data_dir: Path


def image_figures(study: Study, found: Sequence[Cell], mark: str, sources: Sources) -> tuple[list[Drawing], list[str]]:
    """The image figures of a study, and the reasons for missing rows."""
    drawings, reasons = [], []
    for number, figure in enumerate(study.figures, start=1):
        if not isinstance(figure, Images):
            continue
        for panel in panels(study, number, found, mark):
            rows, missing = _rows(study, figure, panel.cells, sources)
            reasons += [f"{panel.heading}: no images for {reason}" for reason in missing]
            if rows:
                what = "samples from the prior" if figure.samples else _RECONSTRUCTIONS
                caption = f"{panel.heading}: {what}, by the best member of each {readable(figure.series)}."
                alt = f"Rows of images: {', '.join(rows)}. {caption}"
                drawings.append(panel.drawing(sheet(rows), caption, alt))
    return drawings, reasons


def _rows(
    study: Study, figure: Images, found: Sequence[Cell], sources: Sources
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Images [n, C, H, W] by the title of their row, and a reason for each missing row."""
    rows: dict[str, np.ndarray] = {}
    missing = []
    for cell in _best_cells(study, figure, found):
        who = label(cell.labels.get(figure.series)) or readable(figure.series)
        member = _best_member(study, cell)
        try:
            data = member.config.data
            shown = load(data.name, sources.data_dir).limited(data.limit).validation[:SHOWN]
            row = cell.finished[member.config.seed]
            vae = trained_model(sources.storage, member.config, row.epochs, shown.shape[1:])
        except (NoModelError, DataError) as error:
            missing.append(f"{who}: {error}")
            continue
        if figure.samples:
            rows[who] = vae.sample(SHOWN).numpy()
            continue
        rows.setdefault("validation images", shown / 255)
        codes = vae.codes(shown)
        rows[who] = vae.decode(codes).numpy()
        deviation = vae.deviation(codes)
        if deviation is not None:
            rows[f"{who}, standard deviation"] = normalized(deviation.numpy())
    return rows, missing


def shown(study: Study, found: Sequence[Cell]) -> set[str]:
    """The keys of the members that the image figures of a study show."""
    return {
        _best_member(study, cell).key
        for number, figure in enumerate(study.figures, start=1)
        if isinstance(figure, Images)
        for panel in panels(study, number, found, "")
        for cell in _best_cells(study, figure, panel.cells)
    }


def _best_cells(study: Study, figure: Images, found: Sequence[Cell]) -> list[Cell]:
    """The best cell of each row of a figure."""
    return [best for same in groups((figure.series,), found) if (best := standing(study, same))]


def _best_member(study: Study, cell: Cell) -> Member:
    values = cell.values(study.metric)
    seed = (min if study.mode == "min" else max)(values, key=lambda seed: values[seed])
    return next(member for member in cell.members if member.config.seed == seed)


def normalized(images: np.ndarray) -> np.ndarray:
    """Stretches each image [n, C, H, W] to [0, 1]; an image without contrast becomes black."""
    low = images.min(axis=(1, 2, 3), keepdims=True)
    span = images.max(axis=(1, 2, 3), keepdims=True) - low
    return (images - low) / np.where(span == 0, 1, span)
