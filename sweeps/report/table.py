"""Tables in a form that can be written in any format."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from search_spaces.space import Study
from sweeps.analysis import numbers
from sweeps.analysis.statistics import Mean

NOTHING = "–"
Kind = Literal["", "best", "published", "note", "text"]


@dataclass(frozen=True)
class Entry:
    """One field of a table.

    value: the key for sorting. kind: how it is shown. verdict: shown beside the text of a claim, else empty.
    """

    text: str
    value: float | str | None = None
    kind: Kind = ""
    verdict: str = ""


@dataclass(frozen=True)
class Table:
    """A table.

    name: the stem of its files. records: the unrounded content, a dictionary for each row.
    mark: why its results are not comparable with the paper; empty if they are.
    paths: the path in the configuration of headings that are fields.
    """

    name: str
    caption: str
    headings: Sequence[str]
    rows: Sequence[Sequence[Entry]]
    records: Sequence[Mapping[str, Any]] = field(repr=False)
    mark: str = ""
    paths: Mapping[str, str] = field(default_factory=dict)

    def first(self, most: int) -> "Table":
        """The table with its first rows and a caption that says so. The records are still all."""
        if len(self.rows) <= most:
            return self
        caption = f"{self.caption} The first {most:,} of {len(self.rows):,} rows; the CSV file has all."
        return replace(self, caption=caption, rows=self.rows[:most])

    def without_empty(self, last: int) -> "Table":
        """The table without those of its last columns that are empty in every row."""
        candidates = range(len(self.headings) - last, len(self.headings))
        empty = {i for i in candidates if all(row[i].text in ("", NOTHING) for row in self.rows)}

        def rest(line: Sequence[Any]) -> list[Any]:
            return [each for i, each in enumerate(line) if i not in empty]

        return replace(self, headings=rest(self.headings), rows=[rest(row) for row in self.rows])


def stem(study: Study, *parts: str) -> str:
    """The stem of a file's name: the study and parts, joined by hyphens."""
    return "-".join([study.name.replace("/", "-"), *parts])


def interval(average: Mean | None) -> Entry:
    """The 95 % interval of a mean."""
    if average is None or average.n < 2:
        return Entry(NOTHING)
    return Entry(numbers.interval(average.low, average.high, average.value, average.stderr), average.low)
