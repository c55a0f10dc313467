"""The runs of a sweep in MLflow, in four levels: the sweep, its studies, their configurations, their members.
docs/mlflow.md lists what each run has.
"""

import json
import logging
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import numpy as np

os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
# The tracker retries; MLflow's own retries would take minutes for every call.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

from search_spaces import Sweep
from search_spaces.space import Study
from sweeps.analysis.best import best
from sweeps.analysis.labels import member_tags, run_name
from sweeps.planning import sessions
from sweeps.planning.plan import Member
from sweeps.records.ledger import Row, now
from sweeps.records.storage import Storage
from sweeps.tracking import inputs as datasets
from sweeps.tracking import registry as models
from sweeps.tracking.configurations import Configuration, Configurations, averages
from sweeps.tracking.known import Known, known_runs
from sweeps.tracking.sqlite import create_database, relocate
from sweeps.tracking.uri import artifacts, remove_stray_folder
from trainables.data import DataError

_METRICS_PER_CALL = 800
"""MLflow takes 1,000 metrics, parameters and tags in a call. It divides more of them, even within an epoch."""
_STATUS = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}
_PARENT = "mlflow.parentRunId"
_EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}  # which pages the user interface shows
Name = tuple[str, str]
"""Study and key of a member."""
log = logging.getLogger(__name__)


class _Fenced:
    def __init__(self, client: MlflowClient, fence: Callable[[], None]):
        self._client, self._fence = client, fence

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)

        def call(*arguments: Any, **named: Any) -> Any:
            self._fence()
            return method(*arguments, **named)

        return call


def fenced(client: MlflowClient, fence: Callable[[], None]) -> MlflowClient:
    """A client that calls `fence` before each call, which raises an exception if the call is not allowed any more."""
    return cast(MlflowClient, _Fenced(client, fence))


class Runs:
    """The runs of a sweep as one connection to MLflow knows them. After an exception it must not be used again.

    Each call of MLflow first checks the sweep's lock: after a takeover the runs belong to the other driver.

    Args:
        uri: the address of the tracking server or database.
        sweep: the sweep; its name is the experiment's.
        studies: the studies that get runs.
        storage: the storage with sessions, checkpoints and the report.
        data_dir: the folder of the data sets.
        confirming: the number of seeds that confirm each finalist.
    """

    def __init__(
        self,
        uri: str,
        sweep: Sweep,
        studies: Sequence[Study],
        storage: Storage,
        data_dir: Path,
        confirming: int = 0,
    ):
        # Errors are raised too, and reported in one line; these loggers would print tracebacks.
        logging.getLogger("mlflow").setLevel(logging.CRITICAL)
        logging.getLogger("alembic").setLevel(logging.CRITICAL)
        self._uri, self._sweep, self._storage, self._data_dir = uri, sweep, storage, data_dir
        self._sessions = sessions.read(storage)
        create_database(uri)
        self._client = fenced(MlflowClient(uri, registry_uri=uri), storage.fence)  # else MLFLOW_REGISTRY_URI counts
        experiment = self._client.get_experiment_by_name(sweep.name)
        remove_stray_folder(uri)
        if experiment is None:
            tags = {"mlflow.note.content": sweep.title, **_EXPERIMENT_TAGS}
            self.experiment = self._client.create_experiment(sweep.name, artifacts(uri), tags)
        else:
            relocate(uri)
            self.experiment = experiment.experiment_id
            if experiment.lifecycle_stage == "deleted":
                self._client.restore_experiment(self.experiment)
        self.run_ids: dict[Name, str] = {}
        self._ends: dict[Name, tuple[str, str | None]] = {}
        """Status and reason of closed runs."""
        self._logged: dict[str, int] = {}
        """The last logged epoch of each run that was touched."""
        self._without_params: set[str] = set()
        """Touched runs whose parameters are not logged yet. They come with the first metrics, to save a call."""
        self._open: set[str] = set()
        self._made: set[str] = set()
        """Runs that this object has made."""
        self._monitor: SystemMetricsMonitor | None = None
        self._studies = {study.name: study for study in studies}
        self._configurations = Configurations(studies, confirming)
        self._parents: dict[str, str] = {}
        """The parents of the members' runs of earlier writers, until they are checked."""
        parents = self._adopt()
        self._sweep_run = self._parent(parents, "sweep", sweep.name, {"mlflow.note.content": sweep.title}, None)
        self._study_runs = {
            study.name: self._parent(parents, f"study {study.name}", study.name, _study_tags(study), self._sweep_run)
            for study in studies
        }
        if self._sessions:
            last = self._sessions[-1]
            command = {} if last.command is None else {"command": last.command.text(storage)}
            self._tag(self._sweep_run, last.environment | command)
            for run_id in self._study_runs.values():
                self._tag(run_id, command)

    def _tag(self, run_id: str, tags: Mapping[str, str]) -> None:
        if tags:
            self._client.log_batch(run_id, tags=[RunTag(*tag) for tag in tags.items()])

    def _adopt(self) -> dict[str, str]:
        """Takes over the members' runs of earlier writers; returns the other runs by kind."""
        parents: dict[str, str] = {}
        for run in known_runs(self._client, self._uri, self.experiment):
            if run.tags.get("kind") == "member" and "key" in run.tags:
                name = (run.tags.get("study", ""), run.tags["key"])
                if name in self.run_ids:
                    # Deleted by hand, and restored with its experiment. The newest run came first, and is kept.
                    self._client.delete_run(run.run_id)
                    continue
                self.run_ids[name] = run.run_id
                self._ends[name] = (run.status, run.tags.get("reason"))
                self._parents[run.run_id] = run.tags.get(_PARENT, "")
                if run.status == "RUNNING":  # its driver was killed, or MLflow was away
                    self._client.set_terminated(run.run_id, "KILLED")
            elif run.tags.get("kind") == "configuration" and "configuration.key" in run.tags:
                self._adopt_configuration(run)
            elif "kind" in run.tags:
                parents[run.tags["kind"]] = run.run_id
        return parents

    def _adopt_configuration(self, run: Known) -> None:
        tags = run.tags
        known = Configuration(tags.get("study", ""), tags["configuration.key"], run.run_id, tags.get(_PARENT, ""))
        known.n = int(tags.get("n", 0))
        known.status = "KILLED" if run.status == "RUNNING" else run.status
        if not self._configurations.add(known):
            self._client.delete_run(run.run_id)  # as for members
        elif run.status == "RUNNING":
            self._client.set_terminated(run.run_id, "KILLED")

    def _parent(self, known: Mapping[str, str], kind: str, name: str, tags: dict[str, str], parent: str | None) -> str:
        run_id = known.get(kind)
        if run_id is None:
            run_id = self._create(name, parent, {"kind": kind, **tags})
        else:
            self._client.update_run(run_id, status="RUNNING")
        self._open.add(run_id)
        return run_id

    def _create(self, name: str, parent: str | None, tags: dict[str, str], started_ms: int | None = None) -> str:
        tags = {
            "sweep": self._sweep.name,
            "mlflow.source.name": f"sweeps.run {self._sweep.name}",
            "mlflow.source.type": "LOCAL",
            **({_PARENT: parent} if parent else {}),
            **tags,
        }
        return self._client.create_run(self.experiment, started_ms, tags, run_name=name).info.run_id

    # --- configurations ----------------------------------------------------------------------------------------------

    def _above(self, member: Member, started_ms: int | None = None) -> str:
        """The parent of a member's run: the run of its configuration, made if there is none, or of its study."""
        study = self._study_runs[member.study]
        configuration = self._configurations.of(member)
        if configuration is None:
            return study
        if not configuration.run_id:
            tags = {"kind": "configuration", "study": member.study, "configuration.key": configuration.key}
            tags |= {"configuration": _configuration(member), "estimator": member.config.estimator.name}
            configuration.run_id = self._create(tags["configuration"], study, tags, started_ms)
            configuration.parent, configuration.status = study, "RUNNING"
            self._open.add(configuration.run_id)
        elif configuration.parent != study:
            self._tag(configuration.run_id, {_PARENT: study})
            configuration.parent = study
        return configuration.run_id

    def _reopen(self, member: Member) -> None:
        """Sets the run of a member's configuration to RUNNING."""
        configuration = self._configurations.of(member)
        if configuration is not None and configuration.run_id and configuration.run_id not in self._open:
            self._client.update_run(configuration.run_id, status="RUNNING")
            configuration.status = "RUNNING"
            self._open.add(configuration.run_id)

    def _place(self, member: Member, run_id: str, started_ms: int | None = None) -> None:
        """Puts the run of an earlier writer below its configuration; earlier versions put it below its study."""
        parent = self._parents.pop(run_id, None)
        if parent is not None and parent != (above := self._above(member, started_ms)):
            self._tag(run_id, {_PARENT: above, "configuration": _configuration(member)})

    def _tell(self, configuration: Configuration, unfinished: str | None = None) -> None:
        """Writes the means of a configuration and ends its run, unless this was done before.

        Means over fewer seeds than before are not written: this session has fewer seeds than an earlier one.

        Args:
            configuration: with the rows of its members.
            unfinished: the status if members are missing; None waits for them.
        """
        study, member = self._studies[configuration.study], configuration.member
        status = configuration.ended_as(self._configurations.seeds(configuration)) or unfinished
        rows = configuration.counting(study)
        n = max(len(rows), configuration.n)
        if status is None or member is None or (status, n) == (configuration.status, configuration.n):
            return
        ended_ms = max(_milliseconds(row.ended) for row in configuration.rows.values())
        if n > configuration.n:
            # The step is the number of seeds: of several values MLflow shows the one with the largest step.
            metrics = [Metric(name, value, ended_ms, step) for name, (value, step) in averages(rows).items()]
            flat = member.config.flat()
            params = [Param(path, str(value)) for path, value in flat.items() if path != "seed"]
            self._client.log_batch(configuration.run_id, metrics, params, [RunTag("n", str(n))])
        self._client.set_terminated(configuration.run_id, status, ended_ms)
        self._open.discard(configuration.run_id)
        configuration.status, configuration.n = status, n

    # --- members -----------------------------------------------------------------------------------------------------

    def _member_run(self, member: Member, row: Row | None = None) -> str:
        name = (member.study, member.key)
        run_id, made = self.run_ids.get(name), False
        if run_id is None:
            made, started_ms = True, _started_ms(row) if row else None
            tags = {"kind": "member", **member_tags(member), "configuration": _configuration(member)}
            tags |= self._origin(row.ended if row else now())
            above = self._above(member, started_ms)
            run_id = self._create(run_name(member.labels, member.config.seed), above, tags, started_ms)
            self.run_ids[name] = run_id
            self._made.add(run_id)
            self._open.add(run_id)
            self._reopen(member)
        if run_id not in self._logged:
            # The run of an earlier writer may lack anything. Parameters may be logged again; steps may not.
            self._without_params.add(run_id)
            self._log_inputs(run_id, member)
            steps = [] if made else self._client.get_metric_history(run_id, "elbo")
            self._logged[run_id] = max((metric.step for metric in steps), default=0)
        if run_id not in self._open:
            self._place(member, run_id)
            self._reopen(member)
            self._client.update_run(run_id, status="RUNNING")
            self._open.add(run_id)
        _, reason = self._ends.pop(name, (None, None))
        if reason is not None:  # it failed and is trained again
            self._client.delete_tag(run_id, "reason")
        return run_id

    def _log_inputs(self, run_id: str, member: Member) -> None:
        data = member.config.data
        try:
            inputs = datasets.inputs(data.name, data.limit, self._data_dir)
        except DataError as error:  # only the workers have the images
            log.debug("a run has no inputs: %s", error)
        else:
            self._client.log_inputs(run_id, list(inputs))

    def _log(
        self,
        member: Member,
        run_id: str,
        since: int,
        history: Mapping[str, Sequence[float] | np.ndarray],
        timestamp: int,
        tags: Mapping[str, str] = {},
    ) -> None:
        """Adds missing metrics after epoch `since`, parameters and tags in few calls, since each takes milliseconds.

        timestamp: of the metrics, in milliseconds since 1970.
        """
        logged = self._logged[run_id]
        if since > logged:
            return  # earlier reports were lost; `complete` adds all epochs
        last = since + max(map(len, history.values()), default=0)
        epochs_per_call = max(1, _METRICS_PER_CALL // max(1, len(history)))
        flat = member.config.flat() if run_id in self._without_params else {}
        params, run_tags = (
            [Param(path, str(value)) for path, value in flat.items()],
            [RunTag(*tag) for tag in tags.items()],
        )
        # A call has whole epochs. MLflow takes all of it or nothing, so the log never ends within an epoch.
        for first in range(logged + 1, last + 1, epochs_per_call) or (last + 1,):
            steps = range(first, min(first + epochs_per_call, last + 1))
            metrics = [
                Metric(name, float(values[step - since - 1]), timestamp, step)
                for step in steps
                for name, values in history.items()
                if np.isfinite(values[step - since - 1])
            ]
            self._client.log_batch(run_id, metrics=metrics, params=params, tags=run_tags)
            params, run_tags = [], []
            self._without_params.discard(run_id)
            self._logged[run_id] = max(logged, steps.stop - 1)

    def progressed(
        self, members: Sequence[Member], since: int, history: Mapping[str, np.ndarray], timestamp: int
    ) -> None:
        """Adds metrics [epochs, M] of the epochs after `since`; timestamp: when they were reported, in milliseconds."""
        for index, member in enumerate(members):
            of_member = {name: values[:, index] for name, values in history.items()}
            self._log(member, self._member_run(member), since, of_member, timestamp)

    def complete(self, ended: Iterable[tuple[Member, Row]]) -> None:
        """Completes the runs of members that have ended, from their rows, and those of their configurations."""
        touched: dict[str, Configuration] = {}
        for member, row in ended:
            run_id = self._complete(member, row)
            self._place(member, run_id, _started_ms(row))
            configuration = self._configurations.of(member)
            if configuration is not None:
                configuration.rows[member.key] = row
                touched[configuration.run_id] = configuration
        for configuration in touched.values():
            self._tell(configuration)

    def _complete(self, member: Member, row: Row) -> str:
        """Completes the run of a member, and returns its id."""
        name, end = (member.study, member.key), (_STATUS[row.status], row.reason)
        if self._ends.get(name) != end:
            run_id = self._member_run(member, row)
            tags = {} if run_id in self._made else self._origin(row.ended)
            tags |= {"reason": row.reason} if row.reason is not None else {}
            ended_ms = _milliseconds(row.ended)
            # MLflow keeps equal metrics once. So a call that was on its way when another driver took over does no harm.
            self._log(member, run_id, 0, dict(row.history), ended_ms, tags)
            self._client.set_terminated(run_id, _STATUS[row.status], ended_ms)
            self._open.discard(run_id)
            self._ends[name] = end
        return self.run_ids[name]

    def _origin(self, time: datetime) -> dict[str, str]:
        """The commit and the user of a training that ended at `time`, as tags."""
        told = sessions.environment_at(self._sessions, time)
        return {name: told[name] for name in ("mlflow.source.git.commit", "mlflow.user") if name in told}

    # --- the sweep and its studies -----------------------------------------------------------------------------------

    def watch(self) -> None:
        """Begins to log the system metrics of this machine, every ten seconds, to the sweep's run."""
        if self._monitor is None:
            self._monitor = SystemMetricsMonitor(self._sweep_run, tracking_uri=self._uri, resume_logging=True)
            self._monitor.start()

    def unwatch(self) -> None:
        """Ends what `watch` began."""
        if self._monitor is not None:
            self._monitor.finish()
            self._monitor = None

    def describe_best(self, study: Study, ended: Sequence[tuple[Member, Row]]) -> None:
        """Tags the run of a study, and the sweep's, with the best configuration so far.

        Tags, since parameters of a run cannot be changed, and the last value of a metric cannot be taken back.
        """
        found = best(study, [member for member, _ in ended], {member.key: row for member, row in ended})
        if found is None:
            return
        parameters = json.dumps(dict(found.labels), default=str)
        tags = {"best": str(found), f"best.{study.metric}": repr(found.mean), "best.parameters": parameters}
        self._tag(self._study_runs[study.name], tags)
        self._tag(self._sweep_run, {f"best.{study.name}": str(found)})

    def register_best(self, study: Study, ended: Sequence[tuple[Member, Row]]) -> None:
        """Registers the best model of a study."""
        model = models.best_of(self._sweep.name, study, ended)
        if model is None:
            return
        run_id = self.run_ids[study.name, model.member.key]
        try:
            models.register(self._client, self.experiment, run_id, model, self._storage, self._data_dir)
        except models.NoModelError as error:
            log.warning("No model of study %s is registered: %s", study.name, error)

    def publish_report(self) -> None:
        """Adds the report, with its figures and tables, to the artifacts of the sweep's run."""
        with tempfile.TemporaryDirectory() as folder:
            self._storage.fetch("report", Path(folder))
            self._client.log_artifacts(self._sweep_run, folder, "report")

    def close(self, status: str) -> None:
        """Ends the runs of the sweep and its studies with that status, and open runs below them with KILLED."""
        self.unwatch()
        for configuration in self._configurations:
            if configuration.rows:
                self._tell(configuration, unfinished="KILLED")
        parents = {self._sweep_run, *self._study_runs.values()}
        for run_id in self._open:
            self._client.set_terminated(run_id, status if run_id in parents else "KILLED")
        self._open.clear()


def _milliseconds(time: datetime) -> int:
    return round(time.timestamp() * 1000)


def _started_ms(row: Row) -> int:
    return _milliseconds(row.ended) - round(row.wall_s * 1000)


def _configuration(member: Member) -> str:
    """The name of a member's configuration in lists, by which MLflow can group its members."""
    name = run_name(member.labels) or member.study
    return f"{name}, fresh seeds" if member.confirms else name


def _study_tags(study: Study) -> dict[str, str]:
    note = f"{study.title} ({study.source}). {'Lower' if study.mode == 'min' else 'Higher'} {study.metric} is better."
    return {"mlflow.note.content": note, "title": study.title, "source": study.source, "study": study.name}
