"""What a run has come to, on one screen."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sweeps.analysis.best import Best, best
from sweeps.planning.plan import Counted, Member
from sweeps.records.ledger import Row

_STUDIES = 12
"""Named one by one; the rest is in the report."""


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
        found += [f"{each.study}: best {each}" for each in self.best[:_STUDIES]]
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
    found = [chosen for study in plan.studies if (chosen := best(study, members, rows))]
    failed = sum(row.status == "failed" for row in rows.values())
    return Summary(plan.total(), len(rows) - failed, failed, trained, found)
