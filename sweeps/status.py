"""python -m sweeps.status NAME: prints how far a sweep has come; works also while it runs.

Reads the sweep's folder and writes nothing. Does not ask Ray or MLflow. --rebuild-tracking adds missing runs to MLflow.
"""

import contextlib
import json
import os
import sys
import time
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Annotated

import typer

from sweeps.analysis.failures import CAUSES, causes
from sweeps.analysis.labels import duration
from sweeps.analysis.status import Status, StudyStatus, study_status
from sweeps.cli import Studies, run_app, single
from sweeps.planning import saved, sessions
from sweeps.planning.unfold import unfold
from sweeps.records.checkpoints import saved_epochs
from sweeps.records.ledger import UnchangedLedger
from sweeps.records.lock import running
from sweeps.records.snapshot import RunSnapshot
from sweeps.records.storage import Storage
from sweeps.tracking.uri import tracking_uri_of


def status_of(storage: Storage, studies: Path | None = None) -> Status:
    """The status of the sweep in a storage.

    Args:
        storage: of the sweep.
        studies: a folder with studies of the user's own (`--studies`).

    Raises:
        UserError: the sweep has never been run there.
    """
    plan = saved.last_plan(storage, studies)
    ledger = UnchangedLedger(storage, tell=False)
    rows = ledger.read()
    driver = running(storage)
    begun = set(chain(*ledger.begun_cohorts(lambda key: key not in rows))) - rows.keys() if driver else set()
    snapshot = RunSnapshot.read(storage) if driver else RunSnapshot()
    unfoldings = unfold(plan, ledger)
    members = unfoldings.members()
    settled = {m.key for m in members if m.key in rows and m.settled_by(rows[m.key].status)}
    for unfolding in unfoldings.values():
        unfolding.look(rows, settled)
    saved_at = {} if driver or all(member.key in rows for member in members) else saved_epochs(storage)
    per_study = [study_status(unfolding, rows, begun, snapshot, saved_at) for unfolding in unfoldings.values()]
    blocked = sum(unfolding.blocked_members for unfolding in unfoldings.values())
    left = sum(study.running + study.missing for study in per_study) - blocked
    failed = any(study.failed for study in per_study)
    command = sessions.last_command(storage, plan)
    files = _checkpoint_files(storage)
    return Status(
        sweep=plan.sweep.name,
        storage=storage.full_uri,
        state="running" if driver else "interrupted" if left else "complete",
        driver=str(driver) if driver else None,
        left_s=snapshot.left_s,
        checkpoint_age_s=max(0.0, time.time() - max(file.st_mtime for file in files)) if files else None,
        checkpoint_bytes=sum(file.st_size for file in files) if storage.local else None,
        damaged=ledger.damaged,
        studies=per_study,
        causes=causes(rows[member.key] for member in members if member.key in rows),
        continue_command=command.text(storage) if left and not driver else None,
        retry_command=command.text(storage, "--retry-failed") if failed else None,
    )


def _checkpoint_files(storage: Storage) -> list[os.stat_result]:
    """The files of all checkpoints; empty if the storage is no local folder."""
    files: list[os.stat_result] = []
    for path in storage.local_path.glob("checkpoints/*/*.safetensors") if storage.local else ():
        with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
            files.append(path.stat())
    return files


def lines_of(now: Status) -> list[str]:
    """A status as lines of text for people."""
    lines = [f"{now.sweep} in {now.storage}: {now.state}"]
    for study in now.studies:
        reasons = ", ".join(f"{count} {reason}" for reason, count in study.failed.items())
        parts = [f"{study.done} of {study.members} done"]
        parts += [f"{sum(study.failed.values())} failed ({reasons})"] if study.failed else []
        parts += [f"{study.running} running{_epoch(study)}"] if study.running else []
        parts += [f"{study.missing} missing{_missing(study)}"] if study.missing else []
        parts += [f"best {study.best}"] if study.best else []
        lines.append(f"  {study.study}: {'; '.join(parts)}")
    lines += [f"Not trained: {reason}." for study in now.studies for reason in study.blocked]
    lines += [f"Failed by {cause}" for cause in now.causes[:CAUSES]]
    if now.damaged:
        lines.append(f"Unreadable files, not counted: {', '.join(now.damaged)}; the next run sets them aside.")
    if now.driver:
        lines.append(f"Running: {now.driver}.")
        if not any(study.running for study in now.studies):
            lines.append("No member is in training: the run is starting, waiting for resources, or ending.")
        elif now.left_s is not None:
            lines.append(f"About {duration(now.left_s)} left.")
    if now.checkpoint_age_s is not None and now.state != "complete":
        lines.append(f"The last checkpoint was saved {duration(now.checkpoint_age_s)} ago.")
    if now.checkpoint_bytes:
        lines.append(
            f"Checkpoints take {now.checkpoint_bytes / 1e6:,.1f} MB; a run with --keep best or none deletes weights."
        )
    if now.continue_command:
        lines.append("No run is active; the last one ended before all members were trained.")
        lines.append(f"To continue: {now.continue_command}")
    if now.retry_command:
        lines.append(f"To train failed members again: {now.retry_command}")
    return lines


def _missing(study: StudyStatus) -> str:
    """What is known of missing members, in parentheses; empty if nothing is."""
    saved = study.saved
    parts = [f"{saved.members} saved, up to epoch {saved.epoch} of {saved.epochs}"] if saved else []
    parts += [f"{study.unknown} wait for other members"] if study.unknown else []
    return f" ({'; '.join(parts)})" if parts else ""


def _epoch(study: StudyStatus) -> str:
    now = study.in_training
    if now is None:
        return ""
    value = "" if now.value is None else f", best {study.metric} so far {now.value:.4g}"
    return f" (epoch {now.epoch} of {now.epochs}{value})"


def status(
    name: Annotated[str, typer.Argument(help="Name of the sweep.")],
    storage: Annotated[str, typer.Option(metavar="URI", help="Folder or URI where the sweep was run.")] = "./runs",
    studies: Studies = None,
    json_: Annotated[bool, typer.Option("--json", help="Print the status as one JSON object.")] = False,
    rebuild_tracking: Annotated[
        bool,
        typer.Option("--rebuild-tracking", help="First add the runs and models that MLflow lacks, from the ledger."),
    ] = False,
    tracking_uri: Annotated[
        str | None,
        typer.Option(
            metavar="URI",
            help="For --rebuild-tracking: MLflow's server or database; default: a file in the storage folder.",
        ),
    ] = None,
    data_dir: Annotated[
        Path, typer.Option(metavar="DIR", help="For --rebuild-tracking: folder of the data sets.")
    ] = Path("data"),
) -> None:
    """Prints the progress of a sweep, its best results so far, what is missing, and the command that continues."""
    place = Storage(storage, name)
    if rebuild_tracking:
        from sweeps.tracking.rebuild import rebuild  # takes seconds to import

        count = rebuild(place, tracking_uri_of(place, tracking_uri), data_dir.absolute(), studies)
        print(f"MLflow has the runs of {count} members.", file=sys.stderr if json_ else sys.stdout)
    found = status_of(place, studies)
    print(json.dumps(asdict(found), indent=2) if json_ else "\n".join(lines_of(found)))


if __name__ == "__main__":
    run_app(single(status), "python -m sweeps.status")
