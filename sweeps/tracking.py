"""MLflow: a view of the sweep, written by the driver alone, from a thread of its own.

Runs are nested: one of the sweep, below it one a study, below that one a member. What MLflow misses (because it was not
reachable, or its database was deleted) is filled in from the ledger the next time the sweep is run. Training never
waits for it: whatever goes wrong here is told once, and the sweep goes on.
"""

import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from search_spaces import Sweep
from search_spaces.space import Study
from sweeps.ledger import Row
from sweeps.plan import Member

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # nothing leaves the machine that the user did not ask for

_METRICS_PER_CALL = 1000
_STATUS = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}
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
        self._jobs: queue.Queue[Callable[[], None] | None] = queue.Queue()
        self.problem: str | None = None
        """The first thing that went wrong, in one line."""
        self.run_ids: dict[tuple[str, str], str] = {}
        """MLflow's run of each member, by study and key; complete once the tracker is closed."""
        self._logged: dict[str, int] = {}
        self._parents: dict[str, str] = {}
        self._open: set[str] = set()
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)

    # --- called by the driver: none of these waits -------------------------------------------------------------------

    def start(self, studies: Sequence[Study], members: Iterable[Member], rows: Mapping[str, Row]) -> None:
        """Opens the runs of the sweep and its studies, and completes those of members that the ledger says are done."""
        members, rows = tuple(members), dict(rows)
        self._thread.start()
        self._jobs.put(lambda: self._start(studies, members, rows))

    def started(self, members: Sequence[Member]) -> None:
        """A cohort begins; its runs are made when it first reports."""

    def progressed(self, members: Sequence[Member], since: int, history: Mapping[str, np.ndarray]) -> None:
        """Adds metrics [epochs, M] of the epochs after `since`."""
        self._jobs.put(lambda: self._progressed(members, since, history))

    def ended(self, members: Sequence[Member], rows: Mapping[str, Row]) -> None:
        """Completes the runs of members that have ended."""
        rows = {member.key: rows[member.key] for member in members}
        self._jobs.put(lambda: self._complete(members, rows))

    def close(self, status: str, timeout_s: float = 120.0) -> None:
        """Ends every run that is open with FINISHED, FAILED or KILLED, and waits for the thread."""
        self._jobs.put(lambda: self._close(status))
        self._jobs.put(None)
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            self.problem = self.problem or f"MLflow had not taken everything after {timeout_s:.0f} s"

    # --- on the thread -----------------------------------------------------------------------------------------------

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            if self.problem is not None:
                continue
            try:
                job()
            except Exception as error:  # whatever MLflow, its database or the network may raise
                self.problem = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
                log.debug("tracking failed", exc_info=True)

    def _start(self, studies: Sequence[Study], members: Sequence[Member], rows: Mapping[str, Row]) -> None:
        from mlflow import MlflowClient  # three seconds, spent while Ray starts

        logging.getLogger("mlflow").setLevel(logging.WARNING)
        logging.getLogger("alembic").setLevel(logging.WARNING)
        self._client = MlflowClient(self._uri)
        experiment = self._client.get_experiment_by_name(self._sweep.name)
        if experiment is None:
            self._experiment = self._client.create_experiment(self._sweep.name, self._artifacts)
        else:
            self._experiment = experiment.experiment_id
        self._adopt()
        self._sweep_run = self._open_run("sweep", self._sweep.name, None, {"title": self._sweep.title})
        for study in studies:
            tags = {"title": study.title, "source": study.source, "study": study.name}
            self._parents[study.name] = self._open_run(f"study {study.name}", study.name, self._sweep_run, tags)
        done = [m for m in members if m.key in rows]
        self._complete([m for m in done if self._ended.get((m.study, m.key)) != _STATUS[rows[m.key].status]], rows)

    def _adopt(self) -> None:
        """Finds the runs that earlier runs of this sweep left."""
        self._ended: dict[tuple[str, str], str] = {}
        self._parent_runs: dict[str, str] = {}
        token = None
        while True:
            page = self._client.search_runs([self._experiment], "", max_results=5000, page_token=token)
            for run in page:
                tags, status = run.data.tags, run.info.status
                if tags.get("kind") == "member" and "key" in tags:
                    name = (tags.get("study", ""), tags["key"])
                    self.run_ids[name] = run.info.run_id
                    self._ended[name] = status
                    if status == "RUNNING":  # its driver was killed
                        self._client.set_terminated(run.info.run_id, "KILLED")
                elif "kind" in tags:
                    self._parent_runs[tags["kind"]] = run.info.run_id
            token = page.token
            if not token:
                return

    def _open_run(self, kind: str, name: str, parent: str | None, tags: dict[str, str]) -> str:
        run_id = self._parent_runs.get(kind)
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
            from mlflow.entities import Param

            config = member.config
            tags = {
                "kind": "member",
                "study": member.study,
                "key": member.key,
                "seed": str(config.seed),
                "estimator": config.estimator.name,
            }
            run_id = self.run_ids[name] = self._create(_run_name(member), self._parents[member.study], tags)
            params = [Param(path, str(value)) for path, value in config.flat().items()]
            self._client.log_batch(run_id, params=params)
            self._logged[run_id] = 0
            self._open.add(run_id)
        elif run_id not in self._logged:
            # Of an earlier driver: never log a step twice.
            steps = self._client.get_metric_history(run_id, "elbo")
            self._logged[run_id] = max((metric.step for metric in steps), default=0)
        if run_id not in self._open:
            self._client.update_run(run_id, status="RUNNING")
            self._open.add(run_id)
        return run_id

    def _log(self, run_id: str, since: int, history: Mapping[str, Iterable[float]]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [
            Metric(name, float(value), now, step)
            for name, values in history.items()
            for step, value in enumerate(values, start=since + 1)
            if step > self._logged[run_id] and np.isfinite(value)
        ]
        for start in range(0, len(metrics), _METRICS_PER_CALL):
            self._client.log_batch(run_id, metrics=metrics[start : start + _METRICS_PER_CALL])
        self._logged[run_id] = max([self._logged[run_id], *(metric.step for metric in metrics)])

    def _progressed(self, members: Sequence[Member], since: int, history: Mapping[str, np.ndarray]) -> None:
        for index, member in enumerate(members):
            self._log(self._member_run(member), since, {name: values[:, index] for name, values in history.items()})

    def _complete(self, members: Sequence[Member], rows: Mapping[str, Row]) -> None:
        for member in members:
            row, run_id = rows[member.key], self._member_run(member)
            self._log(run_id, 0, row.history)
            if row.reason is not None:
                self._client.set_tag(run_id, "reason", row.reason)
            self._client.set_terminated(run_id, _STATUS[row.status])
            self._open.discard(run_id)

    def _close(self, status: str) -> None:
        parents = {self._sweep_run, *self._parents.values()}
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
