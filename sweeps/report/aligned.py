"""Aligns the decimal points of a table's columns.

Columns are aligned to the right, so each number gets invisible digits for those that others have after the point.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from sweeps.report.table import Table

_NUMBER = re.compile(r"([+-]?\d+)(\.\d+)?(?:( ± )(<?\d+)(\.\d+)?)?( ★)?")
"""A number as tables show it: before and after the point, its error before and after the point, a star."""


@dataclass(frozen=True)
class Piece:
    """A part of a text. hidden: it only takes space."""

    text: str
    hidden: bool = False


def aligned(texts: Sequence[str]) -> list[list[Piece]]:
    """The texts of a column as pieces; texts that are no numbers stay as they are."""
    numbers = [_NUMBER.fullmatch(text) for text in texts]
    parts = [[part or "" for part in number.groups()] for number in numbers if number]
    widest = ["", *(max((each[i] for each in parts), key=len, default="") for i in range(1, 6))]
    return [
        _pieces([part or "" for part in number.groups()], widest) if number else [Piece(text)]
        for text, number in zip(texts, numbers, strict=True)
    ]


def cells(table: Table) -> list[list[list[Piece]]]:
    """The fields of a table as pieces, by row. The first column is aligned to the left, so it has no numbers to pad."""
    texts = [[entry.text for entry in row] for row in table.rows]
    columns = [
        aligned(column) if i else [[Piece(text)] for text in column]
        for i, column in enumerate(zip(*texts, strict=True))
    ]
    return [list(row) for row in zip(*columns, strict=True)]


def _pieces(parts: Sequence[str], widest: Sequence[str]) -> list[Piece]:
    pieces: list[Piece] = []
    for i, (own, longest) in enumerate(zip(parts, widest, strict=True)):
        rest = Piece(longest[len(own) :] if i != 3 else longest[: len(longest) - len(own)], hidden=True)
        pieces += [rest, Piece(own)] if i == 3 else [Piece(own), rest]  # the error's whole part grows to the left
    joined: list[Piece] = []
    for piece in pieces:
        if not piece.text:
            continue
        if joined and joined[-1].hidden == piece.hidden:
            joined[-1] = Piece(joined[-1].text + piece.text, piece.hidden)
        else:
            joined.append(piece)
    return joined
