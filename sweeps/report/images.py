"""Figures made of images."""

import io
from collections.abc import Mapping

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def contact_sheet(rows: Mapping[str, np.ndarray]) -> bytes:
    """A PNG of a `sheet`."""
    sink = io.BytesIO()
    FigureCanvasAgg(sheet(rows)).print_png(sink, metadata={"Software": None})
    return sink.getvalue()


def sheet(rows: Mapping[str, np.ndarray]) -> Figure:
    """A labelled row each of images [n, C, H, W] on the scale [0, 1]; what lies outside is cut."""
    count = max(map(len, rows.values()))
    figure = Figure(figsize=(0.7 * count, 0.95 * len(rows)), dpi=150, layout="constrained")
    for axes, (label, images) in zip(figure.subplots(len(rows), squeeze=False)[:, 0], rows.items(), strict=True):
        strip = np.concatenate(list(np.pad(images, ((0, 0), (0, 0), (0, 0), (0, 1)), constant_values=1)), axis=-1)
        axes.imshow(strip.transpose(1, 2, 0).clip(0, 1).squeeze(), cmap="gray", vmin=0, vmax=1)
        axes.set_title(label, loc="left", fontsize=8)
        axes.set_axis_off()
    return figure
