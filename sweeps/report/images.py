"""Draws figures made of images."""

import io
from collections.abc import Mapping

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def contact_sheet(rows: Mapping[str, np.ndarray]) -> bytes:
    """Draws a `sheet` as PNG."""
    sink = io.BytesIO()
    FigureCanvasAgg(sheet(rows)).print_png(sink, metadata={"Software": None})
    return sink.getvalue()


def sheet(rows: Mapping[str, np.ndarray]) -> Figure:
    """Draws a labelled row for each entry: images [n, C, H, W], clipped to [0, 1]."""
    count = max(map(len, rows.values()))
    figure = Figure(figsize=(0.7 * count, 0.95 * len(rows)), dpi=150, layout="constrained")
    for axes, (label, images) in zip(figure.subplots(len(rows), squeeze=False)[:, 0], rows.items(), strict=True):
        strip = np.concatenate(list(np.pad(images, ((0, 0), (0, 0), (0, 0), (0, 1)), constant_values=1)), axis=-1)
        pixels = strip.transpose(1, 2, 0).clip(0, 1).squeeze()
        axes.imshow(pixels, cmap="gray", vmin=0, vmax=1, interpolation="none")  # keeps pixels sharp and files small
        axes.set_title(label, loc="left", fontsize=8)
        axes.set_axis_off()
    return figure
