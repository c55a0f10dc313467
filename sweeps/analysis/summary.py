"""The summary of a run, on one screen."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sweeps.analysis.best import Best, best
from sweeps.planning.plan import Counted, Member
from sweeps.records.ledger import Row

_STUDIES = 12
"""Studies listed one by one; the others are in the report."""


@dataclass(frozen=True)
class Summary:
    """Counts of members, and the best configuration of each study that has results."""

    members: int
    done: int
    failed: int
    trained_now: int
    best: list[Best]

    def lines(self) -> list[str]:
        """The lines to print."""
        found = [f"{self.done} of {self.members} members done, {self.failed} failed, {self.trained_now} trained now."]
        found += [f"{each.study}: best {each}" for each in self.best[:_STUDIES]]
        if len(self.best) > _STUDIES:
            found.append(f"… and {len(self.best) - _STUDIES} more studies; the report has all of them")
        return found


def summary(plan: Counted, members: Sequence[Member], rows: Mapping[str, Row], trained: int) -> Summary:
    """Sums up a run.

    Args:
        plan: the plan, which counts its members.
        members: the known members.
        rows: the ledger's rows of the plan's members.
        trained: how many members ended in this run.
    """
    found = [chosen for study in plan.studies if (chosen := best(study, members, rows))]
    failed = sum(row.status == "failed" for row in rows.values())
    return Summary(plan.total(), len(rows) - failed, failed, trained, found)
