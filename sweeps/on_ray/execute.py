"""Runs cohorts on Ray: one Tune trial each, in reused actors. The driver hears results and hands out work.

Ray Tune is a view here, never the truth: trials are never restored, their state is scratch.
"""

import contextlib
import os
import pickle
import signal
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

# Read by Ray when it is imported: no output of its own, and short waits where Ray Train polls.
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.1")
os.environ.setdefault("RAY_TRAIN_METRICS_ENABLED", "0")
os.environ.setdefault("TUNE_MAX_PENDING_TRIALS_PG", "1024")  # `suggest` says when it is enough
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import logging

import ray
from ray import tune
from ray.exceptions import RayActorError
from ray.train import TrainingFailedError
from ray.tune import TuneError
from ray.tune.execution.class_cache import ENV_VARS_TO_PROPAGATE
from ray.tune.search import Searcher

from sweeps.errors import UserError
from sweeps.on_ray.address import answering
from sweeps.on_ray.authentication import own_token
from sweeps.on_ray.autoscaling import largest
from sweeps.on_ray.losses import Losses
from sweeps.planning.plan import Cohort
from sweeps.records.scratch import scratch_folder
from sweeps.records.storage import joined
from trainables.checkpoint import last_saved_ns
from trainables.ray_train import trial
from trainables.worker import Task, WorkerError, failures

_OBJECT_STORE_BYTES = 256 * 2**20  # results are small; the default takes a third of the machine's memory
_LOST = (RayActorError, TrainingFailedError)
"""What a trial whose process or node was lost is said to have raised; `trial` itself raises nothing."""
_CREDENTIALS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SECURITY_TOKEN", "AWS_SESSION_TOKEN")
_COUNT_EVERY_S = 5.0  # how often nodes are counted
log = logging.getLogger(__name__)
logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # what goes wrong with a trial is told here


class Work(Protocol):
    """What the driver hands out and hears back, all on one thread."""

    def next(self) -> Cohort | None:
        """The next cohort to train; None if there is none at the moment."""
        ...

    def exhausted(self) -> bool:
        """Whether there never will be another one."""
        ...

    def waiting(self) -> int:
        """How many cohorts wait to be handed out."""
        ...

    def resize(self, slots: int) -> None:
        """From now on so many cohorts can be trained at the same time."""
        ...

    def progressed(self, cohort: Cohort, since: int, history: dict[str, Any]) -> None:
        """Metrics [epochs, M] of the epochs after `since`."""
        ...

    def ended(self, cohort: Cohort, results: list[dict[str, Any]]) -> None:
        """What came of each member."""
        ...


@dataclass(frozen=True)
class Resources:
    """What is there, and what one cohort takes of it."""

    device: str
    slots: int
    """How many cohorts run at the same time."""
    workers: int = 1
    max_concurrent: int | None = None
    per_gpu: int = 1
    """How many cohorts, or workers of one, share a GPU."""

    def now(self) -> "Resources":
        """The same, with as many slots as there are now that nodes may have come or gone."""
        places = _units("GPU") * self.per_gpu if self.device == "cuda" else _units("CPU")
        return replace(self, slots=_slots(places, self.workers, self.max_concurrent))

    def threads(self, cohorts: int) -> int:
        """How many threads one of so many cohorts computes with; where they are fewer than CPUs, those are shared out.

        On several nodes it is one, since Ray decides which cohorts meet on a node.
        """
        if self.device == "cuda" or self.workers > 1 or sum(node["Alive"] for node in ray.nodes()) > 1:
            return 1
        return max(1, self.slots // cohorts)

    @property
    def memory_share(self) -> float:
        """The part of a device's memory that one cohort may take."""
        if self.device == "cuda":
            return 1 / self.per_gpu
        most_cpus = max(node["Resources"].get("CPU", 1) for node in ray.nodes())
        return 1 / max(1, min(self.slots, most_cpus))

    @property
    def trial(self) -> dict[str, float]:
        if self.workers > 1:
            # Its workers hold the CPUs and GPUs: a trial that held a part of one would wait for them for ever. Tune
            # wants something, so a mebibyte of memory.
            return {"memory": 2**20}
        return {"CPU": 1, "GPU": 1 / self.per_gpu} if self.device == "cuda" else {"CPU": 1}


@contextlib.contextmanager
def connected(
    *,
    address: str | None,
    device: str,
    workers: int,
    max_concurrent: int | None,
    per_gpu: int = 1,
    token_folder: Path | None = None,
) -> Iterator[Resources]:
    """Starts Ray on this machine, or joins a cluster, for the time of the context, and says what it offers.

    Args:
        per_gpu: how many cohorts, or workers of one, are to share a GPU.
        token_folder: where to keep the token of a Ray that is started here; None for a temporary folder.

    Raises:
        UserError: the address does not answer, or a GPU is asked for where there is none.
    """
    with own_token(token_folder) if address is None else contextlib.nullcontext():
        try:
            _start(address)
            yield _resources(device, workers, max_concurrent, per_gpu)
        finally:
            ray.shutdown()


def _start(address: str | None) -> None:
    quiet: Any = {"log_to_driver": False, "logging_level": logging.ERROR}
    terminate = signal.getsignal(signal.SIGTERM)
    try:
        if address is None:
            # Processes of this machine have our environment. Tune would hand them AWS credentials once more, in a
            # runtime environment, which Ray writes into logs that everybody can read.
            ENV_VARS_TO_PROPAGATE.difference_update(_CREDENTIALS)
            ray.init("local", include_dashboard=False, object_store_memory=_OBJECT_STORE_BYTES, **quiet)
        else:
            ray.init(answering(address), **quiet)
    except RuntimeError as error:
        if address is None or "ersion mismatch" not in str(error):
            raise
        what = " ".join(str(error).split())
        raise UserError(f"--address {address!r}: {what}; install one constraints.txt everywhere") from None
    except SystemExit:
        raise KeyboardInterrupt from None  # what Ray makes of SIGTERM
    finally:
        signal.signal(signal.SIGTERM, terminate)  # which Ray replaces


def _resources(device: str, workers: int, max_concurrent: int | None, per_gpu: int) -> Resources:
    gpus, cpus = _units("GPU"), _units("CPU")
    if device == "auto":
        device = "cuda" if gpus else "cpu"
    if device == "cuda" and not gpus:
        raise UserError("--device cuda: Ray sees no GPU; use --device cpu or join a cluster that has one")
    if device == "cpu" and per_gpu > 1:
        raise UserError(f"--per-gpu {per_gpu}: cohorts are trained on CPUs here; leave it out, or give --device cuda")
    places = gpus * per_gpu if device == "cuda" else cpus
    if workers > places:
        raise UserError(f"--workers {workers}: Ray has {places} {device} units; ask for at most that many")
    slots = _slots(places, workers, max_concurrent)
    return Resources(device, slots, workers, max_concurrent=max_concurrent, per_gpu=per_gpu)


def _units(resource: str) -> int:
    """What the cluster has of a resource, or may grow to."""
    return int(max(ray.cluster_resources().get(resource, 0), largest().get(resource, 0)))


def _slots(places: int, workers: int, max_concurrent: int | None) -> int:
    slots = max(1, places // workers)
    return min(slots, max_concurrent or slots)


@dataclass(frozen=True)
class Places:
    """Where checkpoints and data lie, and how often to save."""

    checkpoints: str
    data_dir: Path
    checkpoint_every_s: float = 60.0


def execute(work: Work, resources: Resources, places: Places, *, probe: bool = False) -> None:
    """Trains everything that `work` hands out; returns when it is exhausted. What `work` raises is raised here.

    probe: let each cohort find out first whether its members fit into memory together.
    """
    with scratch_folder() as scratch:
        dispatcher = _Dispatcher(work, resources, places, str(scratch), probe=probe)
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
                callbacks=[_Listener(dispatcher)],
            ),
        )
        try:
            tuner.fit()
        except TuneError:
            if dispatcher.error is None:
                raise
            raise dispatcher.error from None


def _dead_nodes() -> int:
    return sum(not node["Alive"] for node in ray.nodes())


class _Dispatcher(Searcher):
    """Tune asks it for the next trial's configuration: the next cohort."""

    def __init__(self, work: Work, resources: Resources, places: Places, scratch: str, *, probe: bool):
        super().__init__()
        self._work, self._resources, self._places, self._scratch = work, resources, places, scratch
        self._probe = probe
        self._cohorts: dict[str, Cohort] = {}
        self._lost: deque[Cohort] = deque()
        self._losses, self._dead_nodes = Losses(), _dead_nodes()
        self._live: set[str] = set()
        """Trials that have not ended, from before they have a place to run."""
        self._counted_at = time.monotonic()
        self.error: Exception | None = None
        """What `work` raised: Tune wraps it in an exception of its own."""

    def set_search_properties(self, metric: Any, mode: Any, config: dict, **spec: Any) -> bool:
        return True

    def suggest(self, trial_id: str) -> Any:
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
            memory_share=self._resources.memory_share if self._probe else None,
        )
        self._cohorts[trial_id] = cohort
        self._live.add(trial_id)
        return {"task": task.to_json()}

    def _resize(self) -> None:
        if time.monotonic() - self._counted_at < _COUNT_EVERY_S:
            return
        self._counted_at, found = time.monotonic(), self._resources.now()
        if found.slots != self._resources.slots:
            self._resources = found
            self._work.resize(found.slots)

    def _checkpoints(self, cohort: Cohort) -> str:
        return joined(self._places.checkpoints, cohort.key)

    def heard(self, trial_id: str, report: dict[str, Any]) -> None:
        """A trial reports; one that counts as lost or over is not heard any more."""
        cohort = self._cohorts.get(trial_id)
        if cohort is None:
            return
        with self._kept():
            if "results" in report:
                del self._cohorts[trial_id]
                self._work.ended(cohort, report["results"])
            elif "since" in report:
                self._work.progressed(cohort, report["since"], report["history"])

    def gone(self, trial_id: str, reason: str, detail: str) -> None:
        """A trial is over; its members failed, unless it has reported what came of them."""
        cohort = self._cohorts.get(trial_id)
        if cohort is not None:
            self.heard(trial_id, {"results": failures([member.key for member in cohort.members], reason, detail)})

    def lost(self, trial_id: str, detail: str) -> None:
        """A trial's process or node is gone: unless that happens too often, another one goes on from its checkpoint."""
        cohort = self._cohorts.get(trial_id)
        if cohort is None:
            return
        saved_ns = last_saved_ns(self._checkpoints(cohort))
        if self._losses.again(cohort.key, saved_ns=saved_ns, dead_nodes=_dead_nodes() - self._dead_nodes):
            del self._cohorts[trial_id]
            self._lost.append(cohort)
            log.warning("What trained %d members was lost; they go on from their last checkpoint.", len(cohort.members))
        else:
            self.gone(trial_id, "lost", detail)

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
        pass  # nothing of Tune's is ever restored

    def restore(self, checkpoint_path: str) -> None:
        pass

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its searcher; the driver's state is not Tune's


class _Listener(tune.Callback):
    """Hears of results and ends on the driver's own thread."""

    def __init__(self, dispatcher: _Dispatcher):
        self._dispatcher = dispatcher

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def on_trial_result(self, iteration: int, trials: list, trial: Any, result: dict[str, Any], **info: Any) -> None:
        self._dispatcher.heard(trial.trial_id, result)

    def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        self._dispatcher.gone(trial.trial_id, "error", "the trial ended without a result")

    def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        # Not `trial.get_pickled_error()`: it looks where these files are copied to, which takes a while.
        pickled = trial.pickled_error_file
        error = pickle.loads(Path(pickled).read_bytes()) if pickled else Path(trial.error_file).read_text()
        cause = getattr(error, "cause", error)
        if (told := _worker_error(cause)) is not None:
            self._dispatcher.gone(trial.trial_id, told.reason, told.detail)
        elif isinstance(cause, _LOST):
            self._dispatcher.lost(trial.trial_id, str(error))
        else:
            self._dispatcher.gone(trial.trial_id, "error", str(error))


def _worker_error(error: Any) -> WorkerError | None:
    """What a worker of a group raised, if that is why the group failed; Ray wraps it."""
    raised = [getattr(one, "_base_exc", one) for one in getattr(error, "worker_failures", {}).values()]
    return next((one for one in raised if isinstance(one, WorkerError)), None)
