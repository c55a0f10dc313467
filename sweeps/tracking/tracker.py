"""Writes the sweep to MLflow in a thread of the driver.

Training never waits for MLflow. After an error the thread drops its `Runs`. After a pause it makes new ones, which
continue the existing runs and add what is missing from the rows of the ledger. If something is missing at the end, the
next run of the sweep adds it.
"""

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sweeps.errors import first_line
from sweeps.planning.plan import Counted, Member, Plan
from sweeps.records.ledger import Row
from sweeps.records.lock import LockLostError
from sweeps.records.storage import Storage
from sweeps.tracking.links import member_links
from trainables.reports import History

if TYPE_CHECKING:
    from sweeps.tracking.runs import Name, Runs

RETRY_AFTER_S = 10.0
_FOLLOWING = 0.1
"""The share of the thread's time for members in training. Each write costs milliseconds a member; delayed writes batch
several epochs."""
log = logging.getLogger(__name__)


@dataclass
class _Reports:
    """The metrics [epochs, M] that a cohort has reported for the epochs after `since`."""

    members: Sequence[Member]
    since: int
    history: Mapping[str, np.ndarray]
    timestamp: int
    """When they were reported, in milliseconds since 1970."""

    def add(self, later: "_Reports") -> bool:
        """Appends a later report; returns False if it does not follow this one."""
        epochs = {len(values) for values in self.history.values()}
        if epochs != {later.since - self.since} or later.history.keys() != self.history.keys():
            return False
        self.history = {name: np.concatenate([values, later.history[name]]) for name, values in self.history.items()}
        self.timestamp = later.timestamp
        return True


class Tracker:
    """Writes to MLflow in the background.

    Args:
        uri: the address of the tracking server or database.
        plan: the plan whose studies get runs. A study is complete when all of its members have ended.
        storage: the storage of the sweep.
        data_dir: the folder of the data sets.
        counted: the present number of members of each study; None for the planned number.
    """

    def __init__(self, uri: str, plan: Plan, storage: Storage, data_dir: Path, counted: Counted | None = None):
        self._counted = counted or plan
        self.uri, self._plan, self._storage, self._data_dir = uri, plan, storage, data_dir
        self._studies = {study.name: study for study in plan.studies}
        self._jobs: queue.Queue[Callable[[Runs], None] | None] = queue.Queue()
        self.problem: str | None = None
        """Why MLflow lacks something, in one line; None if it lacks nothing."""
        self.run_ids: dict[Name, str] = {}
        """The run of each member; complete after `close`."""
        self._ended: dict[str, dict[str, tuple[Member, Row]]] = {name: {} for name in self._studies}
        """By study and key."""
        self._unwritten: dict[str, _Reports] = {}
        """Reports of cohorts in training, by the key of the first member. Only the thread uses them."""
        self._write_at = -np.inf
        self._status: str | None = "FAILED"
        self._runs: Runs | None = None
        self._experiment: str | None = None
        self._retry_at = -np.inf
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
        self._thread.start()

    # --- called by the driver: these calls never wait ----------------------------------------------------------------

    def start(self, members: Iterable[Member], rows: Mapping[str, Row]) -> None:
        """Opens the runs of the sweep and its studies. Completes the runs of members that ended before."""
        for member in members:
            if member.key in rows:
                self._ended[member.study][member.key] = (member, rows[member.key])
        self._jobs.put(lambda runs: None)  # the first job also makes `Runs`, which does it all

    def found(self, members: Sequence[Member], rows: Mapping[str, Row]) -> None:
        """Completes the runs of members that were trained before, as `ended` does."""
        self.ended(members, rows)

    def tick(self) -> None:
        pass  # the thread keeps its own time

    def started(self, members: Sequence[Member]) -> None:
        """Begins the system metrics when a cohort begins. The runs of its members are made at its first report."""
        self._jobs.put(lambda runs: runs.watch())

    def progressed(self, members: Sequence[Member], since: int, history: History) -> None:
        """Adds metrics [epochs, M] of the epochs after `since`; the thread may write them later."""
        reports = _Reports(members, since, history, int(time.time() * 1000))
        self._jobs.put(lambda runs: self._follow(runs, reports))

    def ended(self, members: Sequence[Member], rows: Mapping[str, Row]) -> None:
        """Completes the runs of members that have ended. Registers the best models of studies that are now complete."""
        ended = [(member, rows[member.key]) for member in members]
        for member, row in ended:
            self._ended[member.study][member.key] = (member, row)
        self._jobs.put(lambda runs: self._complete(runs, ended))
        for name in {member.study for member in members}:
            self._jobs.put(self._register(name))

    def close(self, status: str | None, timeout_s: float = 120.0) -> None:
        """Ends every open run with FINISHED, FAILED or KILLED; None leaves them open. Waits for the thread."""
        self._status = status
        self._jobs.put(None)
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            self.problem = self.problem or f"it was not up to date after {timeout_s:.0f} s"

    def links(self) -> dict[str, str]:
        """By study, the address of its members in MLflow; empty if MLflow was never reached. After `close`."""
        return {} if self._experiment is None else member_links(self.uri, self._experiment, self._studies.values())

    def publish_report(self) -> None:
        """Adds the report to the sweep's run. Call it after `close`, since the report names the runs."""
        if self._runs is not None and not self._thread.is_alive():
            self._do(lambda runs: runs.publish_report())

    # --- on the thread -----------------------------------------------------------------------------------------------

    def _work(self) -> None:
        with contextlib.suppress(ImportError):  # reported when it is needed
            import sweeps.tracking.runs  # noqa: F401  # takes three seconds, while Ray starts
        while (job := self._jobs.get()) is not None:
            if self._runs is not None or time.monotonic() >= self._retry_at:
                self._do(job)
            self._jobs.task_done()
        if self._status is not None:
            self._do(self._close)

    def _do(self, job: "Callable[[Runs], None]") -> None:
        try:
            if self._runs is None:
                from sweeps.tracking.runs import Runs

                plan = self._plan
                confirming = len(plan.confirming_seeds)
                self._runs = Runs(self.uri, plan.sweep, plan.studies, self._storage, self._data_dir, confirming)
                self.run_ids, self._experiment = self._runs.run_ids, self._runs.experiment
                for study, ended in self._ended.items():
                    self._runs.complete(list(ended.values()))
                    self._register(study)(self._runs)
                self.problem = None
            job(self._runs)
        except LockLostError:  # the driver notices it too; the runs are the other driver's now
            if self._runs is not None:
                self._runs.unwatch()
            self._runs, self._retry_at = None, np.inf
        except Exception as error:  # MLflow, its database and the network may raise anything
            self.problem = f"{type(error).__name__}: {first_line(error)}"
            if self._runs is not None:
                self._runs.unwatch()
            self._runs, self._retry_at = None, time.monotonic() + RETRY_AFTER_S
            log.debug("tracking failed", exc_info=True)

    def _follow(self, runs: "Runs", new: "_Reports") -> None:
        before = self._unwritten.get(new.members[0].key)
        if before is not None and not before.add(new):
            self._write(runs, before)  # the cohort began again
            before = None
        if before is None:
            self._unwritten[new.members[0].key] = new
        if time.monotonic() >= self._write_at:
            self._write_all(runs)

    def _write_all(self, runs: "Runs") -> None:
        began = time.monotonic()
        for reports in list(self._unwritten.values()):
            self._write(runs, reports)
        ended = time.monotonic()
        self._write_at = ended + (ended - began) * (1 / _FOLLOWING - 1)

    def _write(self, runs: "Runs", reports: "_Reports") -> None:
        runs.progressed(reports.members, reports.since, reports.history, reports.timestamp)
        del self._unwritten[reports.members[0].key]

    def _complete(self, runs: "Runs", ended: Sequence[tuple[Member, Row]]) -> None:
        for member, _ in ended:
            self._unwritten.pop(member.key, None)  # the rows have these epochs too
        runs.complete(ended)

    def _close(self, runs: "Runs") -> None:
        self._write_all(runs)
        for name, ended in self._ended.items():
            runs.describe_best(self._studies[name], list(ended.values()))
        runs.close(self._status or "FAILED")

    def _register(self, name: str) -> "Callable[[Runs], None]":
        """Makes a job that registers the best model of a study if all of its members have ended."""
        study, ended = self._studies[name], self._ended[name]
        count = len(ended)

        def register(runs: "Runs") -> None:
            if count == self._counted.size(study):
                runs.describe_best(study, list(ended.values()))
                runs.register_best(study, list(ended.values()))

        return register
