"""The status of a sweep: its studies, members and commands."""

from collections import Counter
from collections.abc import Mapping, Set
from dataclasses import dataclass

from sweeps.analysis.best import Best, best
from sweeps.planning.unfold import Unfolding
from sweeps.records.ledger import Row
from sweeps.records.snapshot import InTraining, RunSnapshot


@dataclass(frozen=True)
class Saved:
    """Missing members that continue from a checkpoint.

    epoch: the last one that any of them has saved, of `epochs`.
    """

    members: int
    epoch: int
    epochs: int


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
    blocked: list[str]
    """Why some of these cannot be trained: the study that they take from has no finished member."""
    saved: Saved | None
    """The missing members with a checkpoint; None if there are none, or while a driver is running."""
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
    """Seconds since the last checkpoint was written; None without checkpoints or without a local folder."""
    checkpoint_bytes: int | None
    """The space that all checkpoints take; None if the storage is not a local folder."""
    damaged: list[str]
    """Files of the ledger that cannot be read; the next run sets them aside."""
    studies: list[StudyStatus]
    causes: list[str]
    """The errors of failed members, the most frequent first; empty if all failed for another reason."""
    continue_command: str | None
    """The command that trains the missing members; None if no member is missing or a driver is running."""
    retry_command: str | None
    """The command that trains the failed members again; None if no member failed."""


def study_status(
    unfolding: Unfolding, rows: Mapping[str, Row], begun: Set[str], snapshot: RunSnapshot, epochs: Mapping[str, int]
) -> StudyStatus:
    """The status of a study.

    Args:
        unfolding: the study's.
        rows: the ledger's, by key.
        begun: the keys of the members in training.
        snapshot: the last one of the driver; an empty one if no driver is running.
        epochs: the last saved epoch of members that can continue from a checkpoint, by key; empty while a driver is
            running.
    """
    study, members = unfolding.study, unfolding.members()
    ended = [rows[member.key] for member in members if member.key in rows]
    in_training = sum(member.key in begun for member in members)
    saved = [(epochs[m.key], m.config.epochs) for m in members if m.key in epochs and m.key not in rows]
    failed = Counter(row.reason or "unknown" for row in ended if row.status == "failed")
    return StudyStatus(
        study=study.name,
        members=unfolding.size,
        done=len(ended) - failed.total(),
        failed=dict(sorted(failed.items())),
        running=in_training,
        missing=unfolding.size - len(ended) - in_training,
        unknown=unfolding.size - len(members) - unfolding.blocked_members,
        blocked=list(unfolding.blocked),
        saved=Saved(len(saved), *max(saved)) if saved else None,
        metric=study.metric,
        in_training=snapshot.studies.get(study.name) if in_training else None,
        best=best(study, members, rows),
    )
