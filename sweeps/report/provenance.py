"""The origin of a report's results, shown at the foot of the page."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from sweeps.planning import sessions
from sweeps.planning.plan import Member, Plan
from sweeps.records.ledger import Row
from sweeps.records.storage import Storage


@dataclass(frozen=True)
class Provenance:
    """The origin of a sweep's results.

    begun, ended: start of the first session and end of the last training, in UTC; None if unknown.
    commits: the program's versions in the order of their use; a `+` means local changes.
    command: the command that continues the sweep.
    hours: the time of all trainings; members trained together share theirs.
    """

    begun: datetime | None
    ended: datetime | None
    commits: tuple[str, ...]
    command: str
    hours: float


def provenance(storage: Storage, plan: Plan, members: Iterable[Member], rows: Mapping[str, Row]) -> Provenance:
    """The origin of the results in a storage."""
    ended = {member.key: rows[member.key] for member in members if member.key in rows}.values()
    recorded = sessions.read(storage)
    environments = [sessions.environment_at(recorded, row.ended) for row in sorted(ended, key=lambda row: row.ended)]
    return Provenance(
        begun=recorded[0].started if recorded else None,
        ended=max((row.ended for row in ended), default=None),
        commits=tuple(dict.fromkeys(commit for each in environments if (commit := _commit(each)))),
        command=sessions.last_command(storage, plan).text(storage),
        hours=sum(row.wall_s for row in ended) / 3600,
    )


def _commit(environment: Mapping[str, str]) -> str:
    commit = environment.get("mlflow.source.git.commit", "")[:12]
    return f"{commit}+" if commit and environment.get("git.dirty") == "true" else commit
