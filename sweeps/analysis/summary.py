"""What a run has come to, on one screen."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sweeps.analysis import cells as tables
from sweeps.analysis.labels import describe
from sweeps.planning.plan import Counted, Member
from sweeps.records.ledger import Row

_STUDIES = 12
"""Named one by one; the rest is in the report."""


@dataclass(frozen=True)
class Best:
    """The best configuration of a study, by the mean over seeds."""

    study: str
    metric: str
    mean: float
    n: int
    labels: dict[str, Any]


@dataclass(frozen=True)
class Summary:
    """Members by what became of them, and the best of every study that has one."""

    members: int
    done: int
    failed: int
    trained_now: int
    best: list[Best]

    def lines(self) -> list[str]:
        """As people read it."""
        found = [f"{self.done} of {self.members} members done, {self.failed} failed, {self.trained_now} trained now."]
        for best in self.best[:_STUDIES]:
            found.append(f"{best.study}: best {best.metric} {best.mean:.4g} ({describe(best.labels)}; n = {best.n})")
        if len(self.best) > _STUDIES:
            found.append(f"… and {len(self.best) - _STUDIES} more studies, in the report")
        return found


def summary(plan: Counted, members: Sequence[Member], rows: Mapping[str, Row], trained: int) -> Summary:
    """Sums up a run.

    Args:
        plan: what was to be trained, with the number of members that is known by now.
        members: those that are known.
        rows: of the plan's members.
        trained: how many ended in this run.
    """
    best = []
    for study in plan.studies:
        for cell in tables.ranked(study, tables.cells(study, members, rows))[:1]:
            best.append(Best(study.name, study.metric, cell.mean[study.metric], cell.n, cell.labels))
    failed = sum(row.status == "failed" for row in rows.values())
    return Summary(plan.total(), len(rows) - failed, failed, trained, best)
