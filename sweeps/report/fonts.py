"""A small font for figures.

Every PDF embeds the glyphs that it uses. Taking them from the whole DejaVu Sans (6,000 glyphs) is a third of the
processor time of a figure, so they are taken from its Latin, Greek and mathematical glyphs. Other glyphs, which names
may have, come from the whole font.
"""

import logging
import tempfile
from pathlib import Path

from fontTools import subset
from matplotlib import font_manager, get_data_path

FAMILY = "Report Sans"
WHOLE = "DejaVu Sans"
_FILES = ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf")
_RANGES = ((0x20, 0x250), (0x370, 0x400), (0x2000, 0x20A0), (0x2190, 0x2300), (0x2500, 0x2670))
_NAMES = (1, 4, 16)
"""The entries of a font's table of names that hold its family."""


def families() -> list[str]:
    """The fonts of figures, the small one first; makes it in a temporary folder.

    It is made again if the folder is gone: each run of a sweep has temporary files of its own.
    """
    if not (_made and all(path.exists() for path in _made)):
        logging.getLogger("fontTools.subset").setLevel(logging.ERROR)  # it warns of tables that no figure needs
        fonts = font_manager.fontManager
        fonts.ttflist = [entry for entry in fonts.ttflist if entry.name != FAMILY]
        folder = tempfile.TemporaryDirectory(prefix="report-fonts-", ignore_cleanup_errors=True)
        _FOLDERS.append(folder)
        _made[:] = [Path(folder.name) / name for name in _FILES]
        for small in _made:
            _write_small(Path(get_data_path(), "fonts", "ttf", small.name), small)
            fonts.addfont(small)
    return [FAMILY, WHOLE]


_made: list[Path] = []
"""The files of the small font."""
_FOLDERS: list[tempfile.TemporaryDirectory[str]] = []
"""Kept until the process ends: matplotlib reads the files when it draws."""


def _write_small(whole: Path, small: Path) -> None:
    """Writes the usual glyphs of a font to a file, as a font of another name."""
    options = subset.Options(glyph_names=True, layout_features=[], legacy_kern=True, hinting=False)
    font = subset.load_font(str(whole), options)
    chosen = subset.Subsetter(options)
    chosen.populate(unicodes=[code for first, end in _RANGES for code in range(first, end)])
    chosen.subset(font)
    for entry in font["name"].names:
        if entry.nameID in _NAMES:
            font["name"].setName(FAMILY, entry.nameID, entry.platformID, entry.platEncID, entry.langID)
    subset.save_font(font, str(small), options)
