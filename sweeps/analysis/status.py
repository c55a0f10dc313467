"""The status of a sweep: from its ledger and, during a run, from its driver's snapshot of members in training."""

import contextlib
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
    """The status of one study. members = done + failed + running + missing."""

    study: str
    members: int
    """All members, with those that a search will suggest later."""
    done: int
    failed: dict[str, int]
    """Members by reason."""
    running: int
    """Members in training in the present run."""
    missing: int
    """Members that neither ended nor run."""
    unknown: int
    """Missing members that depend on later results: the next batch of a search, or the winner of another study."""
    metric: str
    in_training: InTraining | None
    """The progress of the running members, if their driver has reported it."""
    best: Best | None


@dataclass(frozen=True)
class Status:
    """The status of a sweep."""

    sweep: str
    storage: str
    state: str
    """complete, running or interrupted."""
    driver: str | None
    """The host and process of the running driver and its start; None if there is no driver."""
    left_s: float | None
    """The driver's estimate of the seconds left; None if it has none yet."""
    checkpoint_age_s: float | None
    """Seconds since the last checkpoint was written; None without checkpoints or if the storage is no local folder."""
    checkpoint_bytes: int | None
    """The space that all checkpoints take; None if the storage is no local folder."""
    damaged: list[str]
    """Files of the ledger that cannot be read; the next run sets them aside."""
    studies: list[StudyStatus]
    continue_command: str | None
    """The command that trains the missing members; None if no member is missing or a driver is running."""
    retry_command: str | None
    """The command that trains the failed members again; None if no member failed."""


class _Unchanged(Ledger):
    """A ledger that changes nothing in the storage."""

    def __init__(self, storage: Storage):
        super().__init__(storage)
        self.damaged: list[str] = []

    def _set_aside(self, path: str, error: Exception) -> None:
        self.damaged.append(path)

    def end_cohort(self, key: str) -> None:
        pass


def status_of(storage: Storage) -> Status:
    """The status of the sweep in a storage.

    Raises:
        UserError: the sweep has never been run there.
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
        checkpoint_bytes=_checkpoint_bytes(storage),
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


def _checkpoint_bytes(storage: Storage) -> int | None:
    if not storage.local:
        return None
    sizes = 0
    for path in storage.local_path.glob("checkpoints/*/*.safetensors"):
        with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
            sizes += path.stat().st_size
    return sizes
