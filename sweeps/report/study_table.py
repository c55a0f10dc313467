"""A study's results in a table like the paper's, with the published numbers beside ours."""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from search_spaces.published import Number
from search_spaces.space import Study
from sweeps.analysis import cells as tables
from sweeps.analysis.cells import Cell
from sweeps.analysis.labels import label, readable
from sweeps.analysis.metrics import SHOWN, TEST, direction, metric
from sweeps.analysis.numbers import number, signed
from sweeps.analysis.paper import consistency, printed, printed_for
from sweeps.analysis.statistics import Mean
from sweeps.planning import ranking
from sweeps.report.table import NOTHING, Entry, Table, interval, stem


@dataclass(frozen=True)
class Quantity:
    """The content of a column: a metric, final or after an epoch."""

    metric: str
    epoch: int | None = None

    @property
    def title(self) -> str:
        return metric(self.metric).title + (f", epoch {self.epoch}" if self.epoch else "")

    @property
    def name(self) -> str:
        return self.metric + (f"@{self.epoch}" if self.epoch else "")


def quantities(study: Study, found: Sequence[Cell]) -> list[Quantity]:
    """The columns of a study's table that have a number of ours or of the paper."""
    known = {name for cell in found for name in cell.mean}
    names = study.columns or dict.fromkeys((study.metric, *SHOWN))
    numbers = printed(study)
    columns = []
    for name in names:
        epochs = sorted({n.epoch for n in numbers if n.metric == name and n.epoch is not None})
        columns += [Quantity(name, epoch) for epoch in epochs]
        if _last_epoch(found) in epochs:
            continue
        if name in known or any(n.metric == name and n.epoch is None for n in numbers):
            columns.append(Quantity(name))
    test = TEST + study.metric
    return columns + ([Quantity(test)] if test in known and test not in names else [])


def _last_epoch(found: Sequence[Cell]) -> int:
    return max((member.config.epochs for cell in found for member in cell.members), default=0)


def study_table(study: Study, found: Sequence[Cell], mark: str) -> Table:
    """The results of a study: a row for each combination of its `compare` labels, or for each configuration.

    Columns: labels; each quantity as mean ± standard error, with the published number and the difference if there is
    one; the 95 % interval of the study's metric; finished seeds; unfinished members. The interval and the unfinished
    members are left out if there are none. Numbers of finalists are over the fresh seeds that confirm them; then one
    column has the seeds that chose, and another one those that confirm.
    """
    chosen = _rows(study, found)
    names = list(dict.fromkeys(name for cell in chosen for name in cell.labels))
    columns, numbers = quantities(study, found), printed(study)
    theirs = {q for q in columns if any(_matches(n, q) for n in numbers)}
    best = {q: _best(study, q, chosen, _last_epoch(found)) for q in columns}
    headings = [readable(name) for name in names]
    for q in columns:
        beside = ["published", "difference", *([] if mark else ["consistent"])]
        headings += [q.title] + (beside if q in theirs else [])
    confirmed = any(cell.confirmation for cell in found)
    seeds = ["seeds that chose", "seeds that confirm"] if confirmed else ["seeds"]
    headings += [f"95 % interval of {metric(study.metric).title}", *seeds, "not finished"]
    rows, records = [], []
    for cell in chosen:
        judged = cell.judged
        labels = {name: "none" if value is None else value for name, value in cell.labels.items()}
        row = [_label(labels.get(name)) for name in names]
        record: dict[str, Any] = {name: labels.get(name) for name in names}
        for q in columns:
            own = judged.average(q.metric, q.epoch)
            paper = printed_for(study, cell, q.metric, q.epoch)
            row.append(_own(own, cell is best[q]))
            row += _beside(own, paper, mark) if q in theirs else []
            record |= _numbers(q, own) | (_published(q, own, paper, mark) if q in theirs else {})
        row += [interval(judged.average(study.metric)), _seeds(cell, study.metric)]
        row += [_seeds(cell.confirmation, study.metric)] if confirmed else []
        row.append(_unfinished(counts := judged.counts + (cell.counts if judged is not cell else Counter())))
        record |= {"seeds": len(judged.values(study.metric)), "planned": judged.planned}
        if confirmed:
            record |= {"chose": len(cell.values(study.metric)), "confirmed": cell.confirmation is not None}
        record |= {s: counts[s] for s in _UNFINISHED}
        rows.append(row)
        records.append(record | ({"not_comparable": mark} if mark else {}))
    paths = {readable(name): name for name in names if "." in name}
    table = Table(stem(study), _caption(study, found), headings, rows, records, mark, paths)
    return table.without_empty(last=2 + len(seeds))


_UNFINISHED = {"failed": "failed", "stopped": "stopped early", "missing": "missing"}


def unfinished(counts: Mapping[str, int]) -> str:
    """Counts of unfinished members by status; empty if all finished."""
    return ", ".join(f"{counts[status]} {words}" for status, words in _UNFINISHED.items() if counts.get(status))


def _rows(study: Study, found: Sequence[Cell]) -> list[Cell]:
    """The best cell of each row, or its first cell if none has finished, so that missing rows are shown."""
    if study.compare:
        return [tables.standing(study, group) or group[0] for group in tables.groups(study.compare, found)]
    best = tables.ranked(study, found)
    return best + [cell for cell in found if study.metric not in cell.mean]


def _caption(study: Study, found: Sequence[Cell]) -> str:
    what = (
        "each row at its best configuration"
        if any(len(group) > 1 for group in tables.groups(study.compare, found)) and study.compare
        else "every configuration"
        if study.compare or not study.search
        else "every suggestion, the best first"
    )
    confirming = [cell.confirmation for cell in found if cell.confirmation]
    totals = sum((cell.counts for cell in (*found, *confirming)), Counter())
    rest = unfinished(totals)
    counts = f"{totals['finished']} of {totals.total()} members finished" if found else "No member is known yet"
    over = "seeds"
    if confirming:
        over = "the fresh seeds of rows that are confirmed, else over the seeds that chose,"
    return (
        f"{study.title}: {what}. Mean ± standard error over {over} on the validation images, which also choose the "
        f"configurations. {counts}{f'; {rest}' if rest else ''}."
    )


def _matches(number: Number, quantity: Quantity) -> bool:
    return (number.metric, number.epoch) == (quantity.metric, quantity.epoch)


def unmatched(study: Study, found: Sequence[Cell]) -> list[Number]:
    """Published numbers without a row or a column in this run."""
    columns = quantities(study, found)
    return [
        n
        for n in printed(study)
        if not tables.matching(found, n.labels) or not any(_matches(n, quantity) for quantity in columns)
    ]


def _best(study: Study, quantity: Quantity, chosen: Sequence[Cell], last: int) -> Cell | None:
    """The row to star in a column of final values.

    In the column of the study's metric it is the best configuration, by the seeds that choose. In the others it is the
    best of the numbers shown, by the same rule.
    """
    name = quantity.metric
    if quantity.epoch not in (None, last) or not (name == study.metric or metric(name).starred):
        return None
    if name == study.metric:
        return tables.standing(study, chosen) if len(tables.ranked(study, chosen)) > 1 else None
    by_metric = dataclasses.replace(study, metric=name, mode=direction(study, name))
    order = ranking.ranked(by_metric, tables.finalists(chosen), lambda cell: list(cell.judged.ended.values()))
    return order[0] if len(order) > 1 else None


def _label(value: Any) -> Entry:
    return Entry(label(value), value if isinstance(value, int | float | str) else label(value))


def _own(own: Mean | None, best: bool) -> Entry:
    if own is None:
        return Entry(NOTHING)
    return Entry(number(own.value, own.stderr) + (" ★" if best else ""), own.value, "best" if best else "")


def _beside(own: Mean | None, paper: Number | None, mark: str) -> list[Entry]:
    """The published number, the difference and, where results are comparable, whether both are consistent."""
    consistent = [] if mark else [Entry(_consistent(own, paper) if paper else NOTHING, None, "published")]
    if paper is None:
        return [Entry(NOTHING, None, "published")] * 2 + consistent
    difference = own.value - paper.value if own else None
    return [
        Entry(number(paper.value, paper.stderr), paper.value, "published"),
        Entry(NOTHING if difference is None else signed(difference), difference, "published"),
        *consistent,
    ]


def _consistent(own: Mean | None, paper: Number) -> str:
    if own is None:
        return NOTHING
    found = consistency(own, paper)
    if found.consistent is None:
        return NOTHING if found.sees is None else f"would see ±{number(found.sees)}"
    return "yes" if found.consistent else "no"


def _seeds(cell: Cell | None, metric: str) -> Entry:
    """The number of seeds that have a metric; nothing for a cell that is not confirmed."""
    if cell is None:
        return Entry(NOTHING, 0)
    n = len(cell.values(metric))
    return Entry(f"{n} of {cell.planned}" if n < cell.planned else str(n), n)


def _unfinished(counts: Mapping[str, int]) -> Entry:
    return Entry(unfinished(counts), sum(counts.get(status, 0) for status in _UNFINISHED), "note")


def _numbers(quantity: Quantity, own: Mean | None) -> dict[str, float | None]:
    name = quantity.name
    return {
        f"{name}_mean": own.value if own else None,
        f"{name}_stderr": own.stderr if own else None,
        f"{name}_low": own.low if own else None,
        f"{name}_high": own.high if own else None,
    }


def _published(quantity: Quantity, own: Mean | None, paper: Number | None, mark: str) -> dict[str, float | bool | None]:
    name = quantity.name
    found = consistency(own, paper) if own and paper and not mark else None
    return {
        f"{name}_published": paper.value if paper else None,
        f"{name}_difference": own.value - paper.value if own and paper else None,
        f"{name}_consistent": found.consistent if found else None,
        f"{name}_predicted_low": found.low if found else None,
        f"{name}_predicted_high": found.high if found else None,
        f"{name}_detectable": found.sees if found else None,
    }
