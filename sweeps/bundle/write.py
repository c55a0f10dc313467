"""Writes a bundle: everything that is needed to cite the results of a sweep, to check them, and to continue it."""

import dataclasses
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from sweeps.analysis.paper import printed
from sweeps.bundle import records
from sweeps.bundle.crate import METADATA, About, Digest, described
from sweeps.bundle.shared import shared_command, shared_row, shared_session, shared_text
from sweeps.errors import UserError
from sweeps.planning import saved, sessions
from sweeps.planning.plan import Plan
from sweeps.planning.sessions import Session
from sweeps.planning.unfold import unfold
from sweeps.records import ledger
from sweeps.records.ledger import Row, UnchangedLedger
from sweeps.records.lock import running
from sweeps.records.storage import Storage
from sweeps.records.tables import HISTORY, RESULTS, known_run_ids
from sweeps.report.provenance import provenance
from sweeps.report.write import REPORT_FOLDER, write_tables

CONFIGURATIONS, ENVIRONMENT, PUBLISHED = "configurations.json", "environment.json", "published.csv"
_NAMES = {
    RESULTS: "Results: a row for each training, with its configuration, final metrics and status",
    HISTORY: "History: a row for each training and epoch",
    CONFIGURATIONS: "The complete configuration of each training, by its key",
    ENVIRONMENT: "The runs that made the results: command line, commit, versions of packages",
    PUBLISHED: "The numbers printed in the papers, with which the report compares",
    f"{REPORT_FOLDER}/index.html": "The report",
    f"{REPORT_FOLDER}/tables/": "A table of the report",
    f"{REPORT_FOLDER}/figures/": "A figure of the report",
    f"{records.FOLDER}/": "A record of the sweep, from which it can be continued",
}
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Written:
    """The number of members in a bundle, how many of them have finished, and the number of files."""

    members: int
    finished: int
    files: int


def write_bundle(storage: Storage, folder: Path, data_dir: Path, studies: Path | None = None) -> Written:
    """Writes the results of a sweep into a new folder, which appears when it is complete.

    Args:
        storage: the storage of the sweep; nothing in it is changed.
        folder: the new folder.
        data_dir: the folder of the data sets, for figures made of images.
        studies: a folder with studies of the user's own (`--studies`).

    Raises:
        UserError: the folder exists or cannot be written, or the sweep was never run, or is being run.
    """
    if folder.exists() or folder.is_symlink():
        raise UserError(f"--out {str(folder)!r} exists already; give the name of a new folder")
    plan = saved.last_plan(storage, studies)
    if driver := running(storage):
        raise UserError(f"sweep {storage.name!r} is being run by {driver}; export it when the run has ended")
    with _appearing(folder) as partial:
        return _filled(Storage(str(partial.parent), partial.name), storage, plan, data_dir)


@contextmanager
def _appearing(folder: Path) -> Iterator[Path]:
    """A folder beside `folder` that gets its name at the end; removed after an error."""
    partial = folder.absolute().with_name(f".{folder.name}.{os.getpid()}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        yield partial
        partial.rename(folder)
    except OSError as error:
        raise UserError(f"--out {str(folder)!r} cannot be written: {error.strerror or error}") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _filled(bundle: Storage, storage: Storage, plan: Plan, data_dir: Path) -> Written:
    source = UnchangedLedger(storage)
    written = _records(bundle, storage, source)
    rows = ledger.counting(row for of_file in written.values() for row in of_file)
    unfoldings = unfold(plan, source)
    members = unfoldings.members()
    if named := sorted({m.config.data.name for m in members if shared_text(m.config.data.name) != m.config.data.name}):
        log.warning("The bundle has a path of this machine, which is part of configurations: %s", ", ".join(named))
    write_tables(bundle, members, rows, known_run_ids(storage))
    _write_json(bundle, CONFIGURATIONS, {member.key: member.config.model_dump(mode="json") for member in members})
    runs = [(shared_session(each), _command(each)) for each in sessions.read(storage)]
    told = [{"started": s.started.isoformat(), "command": c, "environment": s.environment} for s, c in runs]
    _write_json(bundle, ENVIRONMENT, told)
    bundle.write(PUBLISHED, _published(plan))

    from sweeps.report.html import report  # matplotlib and Optuna take a second to import
    from sweeps.report.reconstructions import Sources

    command = shared_command(sessions.last_command(storage, plan))
    origin = dataclasses.replace(provenance(storage, plan, members, rows), command=command)
    sources = Sources(storage, data_dir)
    for path, content in report(plan, members, rows, sources=sources, counted=unfoldings, provenance=origin).items():
        bundle.write(f"{REPORT_FOLDER}/{path}", content)

    files = {path: Digest.of(bundle.local_path / path) for path in bundle.list("", "", recursive=True)}
    finished = sum(member.key in rows and rows[member.key].status == "finished" for member in members)
    about = About(
        sweep=plan.sweep.name,
        title=plan.sweep.title,
        members=unfoldings.total(),
        finished=finished,
        sources=tuple(dict.fromkeys(study.source for study in plan.studies)),
        sessions=runs,
    )
    bundle.write(METADATA, described(about, files, _NAMES, datetime.now(UTC).date()))
    return Written(about.members, finished, len(files) + 1)


def _command(session: Session) -> str:
    """The command line of a run; a sentence if an earlier version of the program did not record it."""
    return "Its command line was not recorded" if session.command is None else shared_command(session.command)


def _write_json(bundle: Storage, path: str, content: Mapping[str, object] | Sequence[object]) -> None:
    bundle.write(path, json.dumps(content, indent=1, ensure_ascii=False).encode())


def _records(bundle: Storage, storage: Storage, source: UnchangedLedger) -> dict[str, list[Row]]:
    """Copies the sweep's records without anything private; returns the rows of each file of the ledger."""
    found: dict[str, list[Row]] = {}
    for path, rows in source.files():
        shared = list(map(shared_row, rows))
        if any(one is not other for one, other in zip(shared, rows, strict=True)):
            path, content = ledger.encoded(shared)
        elif path in source.damaged:
            continue
        else:
            content = storage.read(path)
        _write_record(bundle, storage, path, content)
        found[path] = shared
    for kind in (records.CHOICES, records.SUGGESTIONS):
        for path in storage.list(kind, ".json", recursive=True):
            if records.kind_of(path):
                _write_record(bundle, storage, path, storage.read(path))
    for session in sessions.read(storage):
        _write_record(bundle, storage, *sessions.encoded(shared_session(session)))
    _write_record(bundle, storage, saved.PLAN, storage.read(saved.PLAN))
    return found


def _write_record(bundle: Storage, storage: Storage, path: str, content: bytes) -> None:
    try:
        records.check(path, content)
    except Exception as error:  # of any damaged file; pyarrow can raise any exception
        log.warning("%s/%s is left out: it cannot be read (%s)", storage.full_uri, path, error)
    else:
        bundle.write(f"{records.FOLDER}/{storage.name}/{path}", content)


def _published(plan: Plan) -> bytes:
    """The printed numbers of all studies as CSV."""
    numbers = [(study, number) for study in plan.studies for number in printed(study)]
    table = pd.DataFrame(
        [
            {"study": study.name, **vars(number), "labels": json.dumps(dict(number.labels), ensure_ascii=False)}
            for study, number in numbers
        ],
        columns=["study", "labels", "metric", "value", "stderr", "n", "epoch", "note", "source"],
        dtype=object,
    )
    return table.to_csv(index=False).encode()
