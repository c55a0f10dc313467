"""Runs cohorts on Ray: one Tune trial each, in reused actors. The driver hands out cohorts and receives their results.

The state of Ray Tune is temporary: trials are never restored from it. The ledger and the checkpoints hold the results.
"""

import contextlib
import logging
import math
import pickle
import signal
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from ray import tune
from ray.exceptions import OutOfMemoryError, RayActorError
from ray.train import TrainingFailedError
from ray.tune import TuneError
from ray.tune.experiment import Trial
from ray.tune.search import Searcher

from sweeps.on_ray.cluster import Resources, renewed
from sweeps.on_ray.idle import Idle
from sweeps.on_ray.losses import Losses
from sweeps.on_ray.placement import nodes
from sweeps.on_ray.private import KilledForMemoryError, survive_memory_kills
from sweeps.planning.plan import PlannedCohort
from sweeps.records.scratch import scratch_folder
from sweeps.records.storage import joined
from trainables.checkpoint import last_saved_ns
from trainables.filesystem import Permit
from trainables.ray_train import ask_to_stop, forget_stop, trial
from trainables.reports import Fault, History, Outcome, Reason, Report, failures
from trainables.worker import Task, WorkerError

SAVING_S = 7.0
"""How long an interrupted run waits for its cohorts to save their checkpoints. Its end takes some two seconds more."""
_LOST = (RayActorError, TrainingFailedError)
"""The errors that Ray reports if the process or node of a trial was lost; `trial` itself raises no error."""
_COUNT_EVERY_S = 5.0
"""Seconds between two counts of the nodes."""
log = logging.getLogger(__name__)
logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # this module reports the errors of trials


class Work(Protocol):
    """The interface of the driver, which hands out cohorts and receives their results, all on one thread."""

    def next(self) -> PlannedCohort | None:
        """The next cohort to train; None if there is none at the moment."""
        ...

    def exhausted(self) -> bool:
        """Whether there will be no further cohort."""
        ...

    def waiting(self) -> int:
        """How many cohorts wait to be handed out."""
        ...

    def resize(self, slots: int) -> None:
        """Sets how many cohorts can be trained at the same time from now on."""
        ...

    def check(self) -> None:
        """Raises an exception if the run must not go on; called about ten times a second."""
        ...

    def progressed(self, cohort: PlannedCohort, since: int, history: History) -> None:
        """Receives metrics by name, [epochs, M] each, of the epochs after `since`."""
        ...

    def ended(self, cohort: PlannedCohort, outcomes: Sequence[Outcome]) -> None:
        """Receives the outcome of each member."""
        ...


@dataclass(frozen=True)
class Places:
    """The places of checkpoints (a folder or URI) and data, and the seconds between two checkpoints."""

    checkpoints: str
    data_dir: Path
    checkpoint_every_s: float = 60.0
    permit: Permit | None = None
    """The permission to write checkpoints; None allows every write."""


def execute(
    work: Work, resources: Resources, places: Places, *, probe: bool = False, max_hours: float | None = None
) -> None:
    """Trains all cohorts of `work`; returns when it is exhausted.

    On Ctrl-C and SIGTERM nothing more is handed out, and cohorts in training save their checkpoints after their current
    epoch. This takes at most `SAVING_S`; a second signal ends the wait.

    Args:
        work: the driver.
        resources: the resources to train on.
        places: the places of checkpoints and data.
        probe: whether each cohort first measures how many of its members fit into memory together.
        max_hours: hours of training after which the run ends as if it were interrupted; None sets no limit.

    Raises:
        KeyboardInterrupt: the run was interrupted, or `max_hours` have passed.
        RayLostError: Ray has ended, or no node of this machine's Ray is alive.
        Exception: any exception that a method of `work` raises.
    """
    survive_memory_kills()
    with scratch_folder() as scratch, _Interruption(max_hours) as interruption:
        dispatcher = _Dispatcher(work, resources, places, str(scratch), interruption, probe=probe)
        tuner = tune.Tuner(
            tune.with_resources(trial, resources.trial),
            tune_config=tune.TuneConfig(
                search_alg=dispatcher,
                num_samples=-1,
                reuse_actors=True,
                trial_name_creator=lambda t: f"cohort-{t.trial_id}",
                trial_dirname_creator=lambda t: f"cohort-{t.trial_id}",
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=str(scratch),
                verbose=0,
                callbacks=[_TrialEvents(dispatcher)],
            ),
        )
        try:
            tuner.fit()
        except TuneError:
            if dispatcher.error is None:
                raise
            raise dispatcher.error from None
        finally:
            if resources.watch is not None and resources.watch.lost:
                resources.watch.close()  # this thread has noticed, and calls Ray no more
        if interruption.since is not None:
            raise KeyboardInterrupt


class _Interruption:
    """A context that notes the first Ctrl-C or SIGTERM; the second one raises KeyboardInterrupt.

    A signal that was ignored before, as in a background job of a shell, stays ignored.

    Args:
        max_hours: the hours after which `look` notes an interruption without a signal; None sets no limit.
    """

    def __init__(self, max_hours: float | None = None) -> None:
        self.since: float | None = None
        """When the first signal came, in seconds of the monotonic clock."""
        self.by_signal = False
        """Whether a signal interrupted the run, and not the clock."""
        self.reason = "Interrupted"
        self._max_hours = max_hours
        self._end = math.inf if max_hours is None else time.monotonic() + 3600 * max_hours
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "_Interruption":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) != signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def look(self) -> float | None:
        """When the run was interrupted, by a signal or by the clock; None if it was not."""
        if self.since is None and time.monotonic() >= self._end:
            self.since, self.reason = time.monotonic(), f"{self._max_hours:g} hours have passed (--max-hours)"
        return self.since

    def _note(self, *_: object) -> None:
        if self.since is not None:
            raise KeyboardInterrupt
        self.since, self.by_signal = time.monotonic(), True


def _dead_nodes() -> int:
    return sum(not node.alive for node in nodes())


class _Dispatcher(Searcher):
    """Gives Tune the configuration of the next trial, which is the next cohort."""

    def __init__(
        self,
        work: Work,
        resources: Resources,
        places: Places,
        scratch: str,
        interruption: _Interruption,
        *,
        probe: bool,
    ):
        super().__init__()
        self._work, self._resources, self._places, self._scratch = work, resources, places, scratch
        self._interruption, self._asked_to_stop = interruption, False
        self._probe = probe
        self._cohorts: dict[str, PlannedCohort] = {}
        self._lost: deque[PlannedCohort] = deque()
        self._losses, self._dead_nodes = Losses(), _dead_nodes()
        self._idle = Idle(own=resources.own)
        self._live: set[str] = set()
        """Trials that have not ended, including those that still wait for resources."""
        self._counted_at = time.monotonic()
        self.error: Exception | None = None
        """The exception that `work` raised; kept, since Tune wraps it in one of its own."""

    def set_search_properties(self, metric: Any, mode: Any, config: dict, **spec: Any) -> bool:
        return True

    def suggest(self, trial_id: str) -> Any:
        if self._interruption.since is not None:
            return Searcher.FINISHED
        with self._kept():
            self._resize()
            if len(self._live) >= self._resources.slots:
                return None
            cohort = self._lost.popleft() if self._lost else self._work.next()
            if cohort is None:
                return Searcher.FINISHED if self._work.exhausted() else None
        task = Task(
            key=cohort.key,
            configs=[member.config.model_dump(mode="json") for member in cohort.members],
            device=self._resources.device,
            data_dir=str(self._places.data_dir),
            checkpoints=self._checkpoints(cohort),
            checkpoint_every_s=self._places.checkpoint_every_s,
            workers=self._resources.workers,
            threads=self._resources.threads(1 + len(self._live) + self._work.waiting()),
            scratch=self._scratch,
            halving=asdict(cohort.halving) if cohort.halving else None,
            per_gpu=self._resources.per_gpu,
            permit=asdict(self._places.permit) if self._places.permit else None,
            memory_share=self._resources.memory_share if self._probe else None,
        )
        self._cohorts[trial_id] = cohort
        self._live.add(trial_id)
        return {"task": task.to_json()}

    def _resize(self) -> None:
        if time.monotonic() - self._counted_at < _COUNT_EVERY_S:
            return
        before, self._resources = self._resources, renewed(self._resources)
        self._counted_at = time.monotonic()
        if before.slots != self._resources.slots:
            self._work.resize(self._resources.slots)

    def step(self, training: int) -> None:
        """Acts on an interruption, and asks `work` whether to go on.

        Args:
            training: how many trials have begun and not ended.

        Raises:
            KeyboardInterrupt: the run was interrupted, and all cohorts have saved or `SAVING_S` has passed.
            RayLostError: Ray cannot go on.
        """
        since, watch = self._interruption.look(), self._resources.watch
        if since is not None and watch is not None:
            watch.interrupted = self._interruption.by_signal
            if watch.lost:  # SIGTERM to all processes of a run ends Ray too
                raise KeyboardInterrupt
        with self._kept():
            if watch is not None:
                watch.check()
            self._idle.step(training, len(self._live), self._resources.alive_nodes)
            self._work.check()
        if since is None:
            return
        if not self._asked_to_stop:
            self._asked_to_stop = True
            # In a thread, because the call blocks if Ray has ended.
            threading.Thread(target=ask_to_stop, args=(self._scratch,), name="ask-to-stop", daemon=True).start()
            if self._cohorts:
                log.warning(
                    "%s: saving members in training, for at most %.0f s; interrupt again to stop at once.",
                    self._interruption.reason,
                    SAVING_S,
                )
        if not self._cohorts or time.monotonic() - since > SAVING_S:
            forget_stop(self._scratch)
            raise KeyboardInterrupt

    def _checkpoints(self, cohort: PlannedCohort) -> str:
        return joined(self._places.checkpoints, cohort.key)

    def heard(self, trial_id: str, data: dict[str, Any]) -> None:
        """Handles the report of a trial. Ignores trials that count as lost or ended."""
        cohort = self._cohorts.get(trial_id)
        if cohort is None:
            return
        with self._kept():
            report = Report.from_plain(data)
            if report is None:
                return
            if report.interrupted:
                del self._cohorts[trial_id]
            elif report.outcomes is not None:
                self._end(trial_id, report.outcomes)
            else:
                self._work.progressed(cohort, report.since, report.history)

    def _end(self, trial_id: str, outcomes: Sequence[Outcome]) -> None:
        self._work.ended(self._cohorts.pop(trial_id), outcomes)

    def gone(self, trial_id: str, reason: Reason | Fault, detail: str) -> None:
        """Handles the end of a trial: its members failed, unless it has reported their outcomes."""
        cohort = self._cohorts.get(trial_id)
        if cohort is not None:
            with self._kept():
                self._end(trial_id, failures([member.key for member in cohort.members], reason, detail))

    def lost(self, trial_id: str, detail: str, reason: Reason = "lost") -> None:
        """Handles the loss of a trial's process or node: retries its cohort from the checkpoint, up to a limit.

        Args:
            trial_id: the trial.
            detail: the message of the error.
            reason: why its members fail, when the limit is reached.
        """
        cohort = self._cohorts.get(trial_id)
        if cohort is None:
            return
        saved_ns = last_saved_ns(self._checkpoints(cohort))
        if self._losses.again(cohort.key, saved_ns=saved_ns, dead_nodes=_dead_nodes() - self._dead_nodes):
            del self._cohorts[trial_id]
            self._lost.append(cohort)
            log.warning(
                "A worker of %d members was lost; they continue from their last checkpoint.", len(cohort.members)
            )
        else:
            self.gone(trial_id, reason, detail)

    @contextlib.contextmanager
    def _kept(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self.error = error
            raise

    def on_trial_complete(self, trial_id: str, result: dict | None = None, error: bool = False) -> None:
        self._live.discard(trial_id)

    def save(self, checkpoint_path: str) -> None:
        pass  # Tune's state is never restored

    def restore(self, checkpoint_path: str) -> None:
        pass

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its searcher; the driver's state must not be in it


class _TrialEvents(tune.Callback):
    """Passes results and ends of trials to the dispatcher, on the driver's thread."""

    def __init__(self, dispatcher: _Dispatcher):
        self._dispatcher = dispatcher

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def on_step_begin(self, iteration: int, trials: list, **info: Any) -> None:
        self._dispatcher.step(sum(trial.status == Trial.RUNNING for trial in trials))

    def on_trial_result(self, iteration: int, trials: list, trial: Any, result: dict[str, Any], **info: Any) -> None:
        self._dispatcher.heard(trial.trial_id, result)

    def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        self._dispatcher.gone(trial.trial_id, "error", "the trial ended without a result")

    def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        # Not `trial.get_pickled_error()`: it reads the copies of these files, which appear later.
        pickled = trial.pickled_error_file
        error = pickle.loads(Path(pickled).read_bytes()) if pickled else Path(trial.error_file).read_text()
        cause = getattr(error, "cause", error)
        if (raised := _worker_error(cause)) is not None:
            self._dispatcher.gone(trial.trial_id, raised.reason, raised.detail)
        elif isinstance(cause, KilledForMemoryError | OutOfMemoryError):
            self._dispatcher.lost(trial.trial_id, str(error), "out_of_memory")
        elif isinstance(cause, _LOST):
            self._dispatcher.lost(trial.trial_id, str(error))
        else:
            self._dispatcher.gone(trial.trial_id, "error", str(error))


def _worker_error(error: Any) -> WorkerError | None:
    """The error of the worker that made its group fail, unwrapped; None if there is none."""
    raised = [getattr(one, "_base_exc", one) for one in getattr(error, "worker_failures", {}).values()]
    return next((one for one in raised if isinstance(one, WorkerError)), None)
