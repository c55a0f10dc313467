"""How far a sweep has come, from its ledger and, while it runs, what its driver says of members in training."""

import time
from collections import Counter
from collections.abc import Mapping, Set
from dataclasses import dataclass
from itertools import chain

from sweeps.analysis.best import Best, best
from sweeps.planning import saved, sessions
from sweeps.planning.unfold import Unfolding, unfold
from sweeps.records.ledger import Ledger, Row
from sweeps.records.lock import running
from sweeps.records.snapshot import InTraining, Snapshot
from sweeps.records.storage import Storage


@dataclass(frozen=True)
class StudyStatus:
    """How far one study has come. members = done + failed + running + missing."""

    study: str
    members: int
    """Those that a search has yet to suggest included."""
    done: int
    failed: dict[str, int]
    """Members by reason."""
    running: int
    """Handed out by the driver that is at work."""
    missing: int
    """Neither ended nor running."""
    unknown: int
    """Of the missing, those that depend on results still to come: a search's next batch, or another study's winner."""
    metric: str
    in_training: InTraining | None
    """How far the running members have come, if their driver has said."""
    best: Best | None


@dataclass(frozen=True)
class Status:
    """How far a sweep has come."""

    sweep: str
    storage: str
    state: str
    """complete, running or interrupted."""
    driver: str | None
    """The driver at work, if there is one: host, process, since when."""
    left_s: float | None
    """About how long the driver still takes, by its own estimate; None until it has one."""
    checkpoint_age_s: float | None
    """Seconds since a member in training was last saved; None if none ever was, or the storage is no local folder."""
    damaged: list[str]
    """Files of the ledger that cannot be read; the next run sets them aside."""
    studies: list[StudyStatus]
    continue_command: str | None
    """What trains the missing members, where there are any and no driver is at work on them."""
    retry_command: str | None
    """What trains the failed members again, where there are any."""


class _Unchanged(Ledger):
    """A ledger that leaves everything where it lies."""

    def __init__(self, storage: Storage):
        super().__init__(storage)
        self.damaged: list[str] = []

    def _set_aside(self, path: str, error: Exception) -> None:
        self.damaged.append(path)

    def end_cohort(self, key: str) -> None:
        pass


def status_of(storage: Storage) -> Status:
    """How far the sweep of a storage has come.

    Raises:
        UserError: it has never been run there.
    """
    plan = saved.last_plan(storage)
    ledger = _Unchanged(storage)
    rows = ledger.read()
    driver = running(storage)
    begun = set(chain(*ledger.begun_cohorts(lambda key: key not in rows))) - rows.keys() if driver else set()
    snapshot = Snapshot.read(storage, driver.since_s) if driver else Snapshot()
    studies = [_study(unfolding, rows, begun, snapshot) for unfolding in unfold(plan, ledger).values()]
    left = sum(study.running + study.missing for study in studies)
    failed = any(study.failed for study in studies)
    command = sessions.last_command(storage, plan)
    return Status(
        sweep=plan.sweep.name,
        storage=storage.full_uri,
        state="running" if driver else "interrupted" if left else "complete",
        driver=str(driver) if driver else None,
        left_s=snapshot.left_s,
        checkpoint_age_s=_checkpoint_age_s(storage),
        damaged=ledger.damaged,
        studies=studies,
        continue_command=command.text(storage) if left and not driver else None,
        retry_command=command.text(storage, "--retry-failed") if failed else None,
    )


def _study(unfolding: Unfolding, rows: Mapping[str, Row], begun: Set[str], snapshot: Snapshot) -> StudyStatus:
    study, members = unfolding.study, unfolding.members()
    ended = [rows[member.key] for member in members if member.key in rows]
    in_training = sum(member.key in begun for member in members)
    failed = Counter(row.reason or "unknown" for row in ended if row.status == "failed")
    return StudyStatus(
        study=study.name,
        members=unfolding.size,
        done=len(ended) - failed.total(),
        failed=dict(sorted(failed.items())),
        running=in_training,
        missing=unfolding.size - len(ended) - in_training,
        unknown=unfolding.size - len(members),
        metric=study.metric,
        in_training=snapshot.studies.get(study.name) if in_training else None,
        best=best(study, members, rows),
    )


def _checkpoint_age_s(storage: Storage) -> float | None:
    if not storage.local:
        return None
    saved = [path.stat().st_mtime for path in storage.local_path.glob("checkpoints/*/*.safetensors")]
    return max(0.0, time.time() - max(saved)) if saved else None
