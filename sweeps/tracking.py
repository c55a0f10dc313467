"""MLflow: a view of the sweep, written by the driver alone, from a thread of its own.

Runs are nested: one of the sweep, below it one a study, below that one a member. Training never waits for MLflow. When
anything goes wrong, all that was known of MLflow is dropped; after a pause a fresh writer takes up what is there, and
fills in what is missing from the rows of the ledger. What is missing at the end, the next run of the sweep fills in.
"""

import contextlib
import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from search_spaces import Sweep
from search_spaces.space import Study
from sweeps.errors import first_line
from sweeps.ledger import Row
from sweeps.plan import Member

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # nothing leaves the machine that the user did not ask for
# Retries are ours; MLflow's own would take minutes for every call.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")

RETRY_AFTER_S = 10.0
_METRICS_PER_CALL = 1000
_STATUS = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}
_Name = tuple[str, str]
"""Study and key: what names a member's run."""
log = logging.getLogger(__name__)


class Tracker:
    """Writes to MLflow in the background.

    Args:
        uri: of the tracking server or database.
        artifacts: URI for artifacts, used where the experiment is made here; None leaves it to the server.
        sweep: whose experiment it writes.
    """

    def __init__(self, uri: str, artifacts: str | None, sweep: Sweep):
        self._uri, self._artifacts, self._sweep = uri, artifacts, sweep
        self._jobs: queue.Queue[Callable[[_Writer], None] | None] = queue.Queue()
        self.problem: str | None = None
        """Why MLflow lacks something, in one line; None when it lacks nothing."""
        self.run_ids: dict[_Name, str] = {}
        """MLflow's run of each member; complete once the tracker is closed."""
        self._studies: tuple[Study, ...] = ()
        self._ended: dict[_Name, tuple[Member, Row]] = {}
        self._status = "FAILED"
        self._writer: _Writer | None = None
        self._retry_at = -np.inf
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
        self._thread.start()

    # --- called by the driver: none of these waits -------------------------------------------------------------------

    def start(self, studies: Sequence[Study], members: Iterable[Member], rows: Mapping[str, Row]) -> None:
        """Opens the runs of the sweep and its studies, and completes those of members that the ledger says are done."""
        self._studies = tuple(studies)
        self._ended = {(m.study, m.key): (m, rows[m.key]) for m in members if m.key in rows}
        self._jobs.put(lambda writer: None)  # making the writer is all there is to do

    def started(self, members: Sequence[Member]) -> None:
        """A cohort begins; its runs are made when it first reports."""

    def progressed(self, members: Sequence[Member], since: int, history: Mapping[str, np.ndarray]) -> None:
        """Adds metrics [epochs, M] of the epochs after `since`."""
        self._jobs.put(lambda writer: writer.progressed(members, since, history))

    def ended(self, members: Sequence[Member], rows: Mapping[str, Row]) -> None:
        """Completes the runs of members that have ended."""
        ended = [(member, rows[member.key]) for member in members]
        self._ended.update({(member.study, member.key): (member, row) for member, row in ended})
        self._jobs.put(lambda writer: writer.complete(ended))

    def close(self, status: str, timeout_s: float = 120.0) -> None:
        """Ends every run that is open with FINISHED, FAILED or KILLED, and waits for the thread."""
        self._status = status
        self._jobs.put(None)
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            self.problem = self.problem or f"it had not taken everything after {timeout_s:.0f} s"

    # --- on the thread -----------------------------------------------------------------------------------------------

    def _work(self) -> None:
        with contextlib.suppress(ImportError):  # told when it is needed
            import mlflow  # noqa: F401  # three seconds, which pass while Ray starts
        while (job := self._jobs.get()) is not None:
            if self._writer is not None or time.monotonic() >= self._retry_at:
                self._do(job)
            self._jobs.task_done()
        self._do(lambda writer: writer.close(self._status))

    def _do(self, job: "Callable[[_Writer], None]") -> None:
        try:
            if self._writer is None:
                self._writer = _Writer(self._uri, self._artifacts, self._sweep, self._studies)
                self.run_ids = self._writer.run_ids
                self._writer.complete(list(self._ended.values()))
                self.problem = None
            job(self._writer)
        except Exception as error:  # whatever MLflow, its database or the network may raise
            self.problem = f"{type(error).__name__}: {first_line(error)}"
            self._writer, self._retry_at = None, time.monotonic() + RETRY_AFTER_S
            log.debug("tracking failed", exc_info=True)


class _Writer:
    """What one connection to MLflow knows of its runs. Not used again once it has raised."""

    def __init__(self, uri: str, artifacts: str | None, sweep: Sweep, studies: Sequence[Study]):
        from mlflow import MlflowClient

        # What goes wrong is raised as well, and told in one line; they would print a traceback.
        logging.getLogger("mlflow").setLevel(logging.CRITICAL)
        logging.getLogger("alembic").setLevel(logging.CRITICAL)
        self._sweep = sweep
        self._client = MlflowClient(uri)
        experiment = self._client.get_experiment_by_name(sweep.name)
        if experiment is None:
            self._experiment = self._client.create_experiment(sweep.name, artifacts)
        else:
            self._experiment = experiment.experiment_id
            if experiment.lifecycle_stage == "deleted":
                self._client.restore_experiment(self._experiment)
        self.run_ids: dict[_Name, str] = {}
        self._ends: dict[_Name, tuple[str, str | None]] = {}
        """Status and reason of runs that are not open."""
        self._logged: dict[str, int] = {}
        """The last epoch of each run that was touched."""
        self._open: set[str] = set()
        parents = self._adopt()
        self._sweep_run = self._parent(parents, "sweep", sweep.name, {"title": sweep.title}, None)
        self._study_runs = {
            study.name: self._parent(
                parents,
                f"study {study.name}",
                study.name,
                {"title": study.title, "source": study.source, "study": study.name},
                self._sweep_run,
            )
            for study in studies
        }

    def _adopt(self) -> dict[str, str]:
        """Finds the members' runs that earlier writers left; returns the other runs by kind."""
        parents: dict[str, str] = {}
        token = None
        while True:
            page = self._client.search_runs([self._experiment], "", max_results=5000, page_token=token)
            for run in page:
                tags, run_id = run.data.tags, run.info.run_id
                if tags.get("kind") == "member" and "key" in tags:
                    name = (tags.get("study", ""), tags["key"])
                    self.run_ids[name] = run_id
                    self._ends[name] = (run.info.status, tags.get("reason"))
                    if run.info.status == "RUNNING":  # its driver was killed, or its writer gave up
                        self._client.set_terminated(run_id, "KILLED")
                elif "kind" in tags:
                    parents[tags["kind"]] = run_id
            token = page.token
            if not token:
                return parents

    def _parent(self, known: Mapping[str, str], kind: str, name: str, tags: dict[str, str], parent: str | None) -> str:
        run_id = known.get(kind)
        if run_id is None:
            run_id = self._create(name, parent, {"kind": kind, **tags})
        else:
            self._client.update_run(run_id, status="RUNNING")
        self._open.add(run_id)
        return run_id

    def _create(self, name: str, parent: str | None, tags: dict[str, str]) -> str:
        tags = {"sweep": self._sweep.name, **tags} | ({"mlflow.parentRunId": parent} if parent else {})
        return self._client.create_run(self._experiment, tags=tags, run_name=name).info.run_id

    def _member_run(self, member: Member) -> str:
        name = (member.study, member.key)
        run_id = self.run_ids.get(name)
        if run_id is None:
            config = member.config
            tags = {
                "kind": "member",
                "study": member.study,
                "key": member.key,
                "seed": str(config.seed),
                "estimator": config.estimator.name,
            }
            run_id = self._create(_run_name(member), self._study_runs[member.study], tags)
            self.run_ids[name] = run_id
            self._open.add(run_id)
        if run_id not in self._logged:
            from mlflow.entities import Param

            # A run that an earlier writer made may lack anything; a parameter may be logged twice, a step may not.
            self._client.log_batch(
                run_id, params=[Param(path, str(value)) for path, value in member.config.flat().items()]
            )
            steps = self._client.get_metric_history(run_id, "elbo")
            self._logged[run_id] = max((metric.step for metric in steps), default=0)
        if run_id not in self._open:
            self._client.update_run(run_id, status="RUNNING")
            self._open.add(run_id)
        _, reason = self._ends.pop(name, (None, None))
        if reason is not None:  # it failed, and is tried again
            self._client.delete_tag(run_id, "reason")
        return run_id

    def _log(self, run_id: str, since: int, history: Mapping[str, Sequence[float] | np.ndarray]) -> None:
        from mlflow.entities import Metric

        logged = self._logged[run_id]
        if since > logged:
            return  # reports before this one were lost; the end of the member brings them all
        last = since + max(map(len, history.values()), default=0)
        epochs_per_call = max(1, _METRICS_PER_CALL // max(1, len(history)))
        timestamp = int(time.time() * 1000)
        # Whole epochs a call: a call is taken whole or not at all, so that what is logged never ends within an epoch.
        for first in range(logged + 1, last + 1, epochs_per_call):
            steps = range(first, min(first + epochs_per_call, last + 1))
            metrics = [
                Metric(name, float(values[step - since - 1]), timestamp, step)
                for step in steps
                for name, values in history.items()
                if np.isfinite(values[step - since - 1])
            ]
            self._client.log_batch(run_id, metrics=metrics)
            self._logged[run_id] = steps[-1]

    def progressed(self, members: Sequence[Member], since: int, history: Mapping[str, np.ndarray]) -> None:
        for index, member in enumerate(members):
            self._log(self._member_run(member), since, {name: values[:, index] for name, values in history.items()})

    def complete(self, ended: Iterable[tuple[Member, Row]]) -> None:
        """Brings the runs of members that have ended to what their rows say."""
        for member, row in ended:
            name, end = (member.study, member.key), (_STATUS[row.status], row.reason)
            if self._ends.get(name) == end:
                continue
            run_id = self._member_run(member)
            self._log(run_id, 0, row.history)
            if row.reason is not None:
                self._client.set_tag(run_id, "reason", row.reason)
            self._client.set_terminated(run_id, _STATUS[row.status])
            self._open.discard(run_id)
            self._ends[name] = end

    def close(self, status: str) -> None:
        """Ends the sweep's and its studies' runs with that status, and members' runs that are open as killed."""
        parents = {self._sweep_run, *self._study_runs.values()}
        for run_id in self._open:
            self._client.set_terminated(run_id, status if run_id in parents else "KILLED")
        self._open.clear()


def _run_name(member: Member) -> str:
    """What a person would call it: the labels, short, and the seed."""
    parts = [
        f"{path.rpartition('.')[2]}={value:.4g}" if isinstance(value, float) else str(value)
        for path, value in member.labels.items()
    ]
    return " ".join([*parts, f"seed={member.config.seed}"])
