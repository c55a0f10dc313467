"""The small font of figures."""

import shutil
import tempfile

from matplotlib import font_manager

from sweeps.report import fonts
from sweeps.report.drawing import canvas, draw, style


def test_the_font_of_figures_is_made_again_when_its_folder_is_gone(tmp_path, monkeypatch):
    for run in ("first", "second"):  # each run of a sweep has temporary files of its own, and removes them
        place = tmp_path / run
        place.mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(place))
        if fonts._made:
            shutil.rmtree(fonts._made[0].parent, ignore_errors=True)
        with style():
            figure = canvas(3, 2)
            figure.add_subplot().set_title("Loss")
            assert draw(figure, "f", "A figure", "alt", "").pdf.startswith(b"%PDF")
        assert fonts._made[0].is_relative_to(place)
        assert font_manager.findfont(fonts.FAMILY) == str(fonts._made[0])
