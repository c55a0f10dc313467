"""Tables, ready to be written in any format."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from search_spaces.space import Study
from sweeps.analysis import numbers
from sweeps.analysis.statistics import Mean

NOTHING = "–"
Kind = Literal["", "best", "published", "note", "text"]


@dataclass(frozen=True)
class Entry:
    """One field of a table.

    value: what it is sorted by. kind: how it is shown. verdict: stands beside the text; empty except for claims.
    """

    text: str
    value: float | str | None = None
    kind: Kind = ""
    verdict: str = ""


@dataclass(frozen=True)
class Table:
    """A table.

    name: the stem of its files. records: the same as numbers, a dictionary a row. mark: what makes it incomparable.
    """

    name: str
    caption: str
    headings: Sequence[str]
    rows: Sequence[Sequence[Entry]]
    records: Sequence[Mapping[str, Any]] = field(repr=False)
    mark: str = ""


def stem(study: Study, *parts: str) -> str:
    """The stem of a file's name."""
    return "-".join([study.name.replace("/", "-"), *parts])


def interval(average: Mean | None) -> Entry:
    """The 95 % interval of a mean."""
    if average is None or average.n < 2:
        return Entry(NOTHING)
    return Entry(numbers.interval(average.low, average.high, average.value, average.stderr), average.low)
