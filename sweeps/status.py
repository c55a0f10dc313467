"""python -m sweeps.status NAME: how far a sweep has come, from its ledger alone; also while it runs.

Nothing is written, and neither Ray nor MLflow is asked; with --rebuild-tracking, MLflow is brought up to the ledger.
"""

import json
import math
import sys
import time
from collections import Counter
from collections.abc import Mapping, Set
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import typer

from search_spaces.space import Study
from sweeps.analysis import cells as tables
from sweeps.analysis.labels import describe
from sweeps.cli import run_app, single
from sweeps.planning import sessions
from sweeps.planning.unfold import Unfolding, unfold
from sweeps.records.ledger import Ledger, Row
from sweeps.records.lock import Holder, running
from sweeps.records.storage import Storage
from sweeps.tracking.uri import tracking_uri_of


@dataclass(frozen=True)
class Best:
    """The configuration of a study with the best mean over seeds so far."""

    labels: dict[str, Any]
    metric: str
    mean: float
    seeds: int
    """Seeds that finished."""
    planned_seeds: int


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
    """About how long the driver still takes, at the rate so far; None where nothing has ended since it began."""
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
    from sweeps.planning import saved

    plan = saved.last_plan(storage)
    ledger = _Unchanged(storage)
    rows = ledger.read()
    driver = running(storage)
    begun = set(chain(*ledger.begun_cohorts(lambda key: key not in rows))) - rows.keys() if driver else set()
    studies = [_study(unfolding, rows, begun) for unfolding in unfold(plan, ledger).values()]
    left = sum(study.running + study.missing for study in studies)
    failed = any(study.failed for study in studies)
    command = sessions.last_command(storage, plan)
    return Status(
        sweep=plan.sweep.name,
        storage=storage.full_uri,
        state="running" if driver else "interrupted" if left else "complete",
        driver=str(driver) if driver else None,
        left_s=_left_s(driver, rows, left) if driver else None,
        checkpoint_age_s=_checkpoint_age_s(storage),
        damaged=ledger.damaged,
        studies=studies,
        continue_command=command.text(storage) if left and not driver else None,
        retry_command=command.text(storage, "--retry-failed") if failed else None,
    )


def _left_s(driver: Holder, rows: Mapping[str, Row], left: int) -> float | None:
    """Seconds for as many members, at the rate at which they have ended since the driver began."""
    ended = sum(row.ended.timestamp() > driver.since_s for row in rows.values())
    return left * (time.time() - driver.since_s) / ended if ended else None


def _study(unfolding: Unfolding, rows: Mapping[str, Row], begun: Set[str]) -> StudyStatus:
    study, members = unfolding.study, unfolding.members()
    ended = [rows[member.key] for member in members if member.key in rows]
    in_training = sum(member.key in begun for member in members)
    failed = Counter(row.reason or "unknown" for row in ended if row.status == "failed")
    ranked = tables.ranked(study, tables.cells(study, members, rows))
    best = next((cell for cell in ranked if math.isfinite(cell.mean[study.metric])), None)
    return StudyStatus(
        study=study.name,
        members=unfolding.size,
        done=len(ended) - failed.total(),
        failed=dict(sorted(failed.items())),
        running=in_training,
        missing=unfolding.size - len(ended) - in_training,
        unknown=unfolding.size - len(members),
        best=_best(study, best) if best else None,
    )


def _best(study: Study, cell: tables.Cell) -> Best:
    return Best(cell.labels, study.metric, cell.mean[study.metric], cell.n, cell.planned)


def _checkpoint_age_s(storage: Storage) -> float | None:
    if not storage.local:
        return None
    saved = [path.stat().st_mtime for path in storage.local_path.glob("checkpoints/*/*.safetensors")]
    return max(0.0, time.time() - max(saved)) if saved else None


def lines_of(found: Status) -> list[str]:
    """A status as a person reads it."""
    lines = [f"{found.sweep} in {found.storage}: {found.state}"]
    for study in found.studies:
        reasons = ", ".join(f"{count} {reason}" for reason, count in study.failed.items())
        parts = [f"{study.done} of {study.members} done"]
        parts += [f"{sum(study.failed.values())} failed ({reasons})"] if study.failed else []
        parts += [f"{study.running} running"] if study.running else []
        waiting = f" ({study.unknown} until others have ended)" if study.unknown else ""
        parts += [f"{study.missing} missing{waiting}"] if study.missing else []
        parts += [f"best {_described(study.best)}"] if study.best else []
        lines.append(f"  {study.study}: {'; '.join(parts)}")
    if found.damaged:
        lines.append(f"Not readable, so not counted: {', '.join(found.damaged)}; the next run sets them aside.")
    if found.driver:
        lines.append(f"Running: {found.driver}.")
        if not any(study.running for study in found.studies):
            lines.append("Nothing is in training at the moment: it is starting, waiting for resources, or ending.")
        elif found.left_s is not None:
            lines.append(f"About {_duration(found.left_s)} left.")
    if found.checkpoint_age_s is not None and found.state != "complete":
        lines.append(f"Members in training were last saved {_duration(found.checkpoint_age_s)} ago.")
    if found.continue_command:
        lines.append("Nothing is running: the last run ended before it had trained all members.")
        lines.append(f"To go on: {found.continue_command}")
    if found.retry_command:
        lines.append(f"To train failed members again: {found.retry_command}")
    return lines


def _described(best: Best) -> str:
    seeds = str(best.seeds) if best.seeds == best.planned_seeds else f"{best.seeds} of {best.planned_seeds}"
    return f"{best.metric} {best.mean:.4g} ({describe(best.labels)}; n = {seeds})"


def _duration(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def status(
    name: Annotated[str, typer.Argument(help="The sweep.")],
    storage: Annotated[str, typer.Option(metavar="URI", help="Where it was run: a folder or a URI.")] = "./runs",
    json_: Annotated[bool, typer.Option("--json", help="Print the same as one JSON object.")] = False,
    rebuild_tracking: Annotated[
        bool, typer.Option("--rebuild-tracking", help="First bring into MLflow whatever of the ledger it lacks.")
    ] = False,
    tracking_uri: Annotated[
        str | None, typer.Option(metavar="URI", help="MLflow's, to rebuild; by default sqlite in the storage folder.")
    ] = None,
    data_dir: Annotated[Path, typer.Option(metavar="DIR", help="Where data sets lie, to rebuild.")] = Path("data"),
) -> None:
    """Says how far a sweep has come, what is best so far, what is missing, and the command that goes on."""
    from sweeps.planning import saved

    saved.find_sweep(name)
    place = Storage(storage, name)
    if rebuild_tracking:
        from sweeps.tracking.rebuild import rebuild  # takes seconds to import

        count = rebuild(place, tracking_uri_of(place, tracking_uri), data_dir.absolute())
        print(f"MLflow has the runs of {count} members.", file=sys.stderr if json_ else sys.stdout)
    found = status_of(place)
    print(json.dumps(asdict(found), indent=2) if json_ else "\n".join(lines_of(found)))


if __name__ == "__main__":
    run_app(single(status), "python -m sweeps.status")
