"""Rebuilds MLflow's view of a sweep from its ledger."""

import logging
from collections.abc import Iterable
from pathlib import Path

from sweeps.errors import UserError
from sweeps.planning import saved, sessions
from sweeps.planning.plan import Plan
from sweeps.planning.unfold import unfold
from sweeps.records.ledger import Ledger
from sweeps.records.lock import Lock
from sweeps.records.storage import Storage
from sweeps.report.write import write_outputs
from sweeps.tracking.tracker import Tracker

TIMEOUT_S = 24 * 3600.0
log = logging.getLogger(__name__)


def rebuild(storage: Storage, tracking_uri: str, data_dir: Path, studies: Path | None = None) -> int:
    """Adds the missing runs of all sessions of a sweep to MLflow; returns the number of members that have a run.

    It also writes the results and the report again, since they name the runs.

    Raises:
        UserError: the sweep was never run, is running, or MLflow cannot be written.
    """
    last = saved.last_plan(storage, studies)
    with Lock(storage):
        ledger = Ledger(storage)
        rows = ledger.read()
        run_ids: dict[tuple[str, str], str] = {}
        # The last plan comes last, so that the aliases end at its best models.
        for plan in [*_earlier(storage, last), last]:
            unfoldings = unfold(plan, ledger)
            members = unfoldings.members()
            ended = [member for member in members if member.key in rows and member.settled_by(rows[member.key].status)]
            tracker = Tracker(tracking_uri, plan, storage, data_dir, unfoldings)
            tracker.start(ended, rows)
            complete = len(ended) == sum(map(unfoldings.size, plan.studies))
            tracker.close("FINISHED" if complete else "KILLED", TIMEOUT_S)
            if tracker.problem:
                raise UserError(f"MLflow cannot be rebuilt: {tracker.problem}; run the same command again to continue")
            run_ids |= tracker.run_ids
            if plan is last:
                write_outputs(storage, unfoldings, rows, tracker.run_ids, data_dir, tracker.links())
                tracker.publish_report()
        return len(run_ids)


def _earlier(storage: Storage, last: Plan) -> Iterable[Plan]:
    """The plans of earlier sessions, each once. Plans that the search spaces no longer have are left out."""
    known = [last.overrides]
    for session in sessions.read(storage):
        if session.overrides not in known:
            known.append(session.overrides)
            try:
                yield Plan(last.original, session.overrides)
            except UserError as error:
                log.warning("The session of %s is left out: %s", session.started, error)
