"""One run of a sweep, from the plan to the exit code."""

import contextlib
import dataclasses
import logging
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rich.console import Console

from sweeps.analysis import summary
from sweeps.analysis.failures import CAUSES, causes
from sweeps.driver.driver import Driver
from sweeps.driver.json_log import JsonLog
from sweeps.driver.keep import Keep, remove_weights, wanted
from sweeps.driver.progress import Progress
from sweeps.driver.waiting import waiting
from sweeps.errors import INTERRUPTED, OK, SOME_FAILED, UserError, first_line
from sweeps.on_ray.watch import RayLostError
from sweeps.planning import disk_space, saved, sessions
from sweeps.planning.command import Command
from sweeps.planning.pace import Pace
from sweeps.planning.plan import Plan
from sweeps.planning.schedule import Workload
from sweeps.records import snapshot
from sweeps.records.ledger import Ledger
from sweeps.records.lock import LockLostError, permit
from sweeps.records.scratch import private_temporary_files
from sweeps.records.storage import Storage, joined
from sweeps.redact import redact
from sweeps.report.write import write_outputs
from sweeps.tracking.tracker import Tracker
from sweeps.tracking.uri import foreign, ui_command
from trainables.data import DataError, download, load

if TYPE_CHECKING:
    from sweeps.on_ray.cluster import Resources

_LINKS = 3
"""Studies whose members have a link in the terminal; the report has the others."""
log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of a run that do not change what is trained."""

    command: Command
    """The command that started the run; printed when the user should run it again."""
    retry_failed: bool
    max_failures: int | None
    max_hours: float | None
    tracking_uri: str
    data_dir: Path
    download: bool
    device: str
    pack: int | None
    workers: int
    per_gpu: int
    max_concurrent: int | None
    address: str | None
    keep: Keep = "last"
    """Whose weights stay at the end of the run."""
    log_json: bool = False
    """Whether standard output has one JSON object a line, for programs; text for people then goes to standard error."""
    log_metrics: bool = False
    """Whether the JSON objects of progress have the metrics of every member."""


def launch(plan: Plan, storage: Storage, options: Options, console: Console) -> int:
    """Trains the missing members, writes everything that is derived from the ledger, and returns the exit code.

    Raises:
        UserError: a data set is missing, space for the results is missing, Ray cannot be used as asked or has ended,
            the storage failed, or the lock was lost.
    """
    try:
        with private_temporary_files():
            return _launch(plan, storage, options, console)
    except RayLostError as error:
        raise UserError(f"{error}; {_advice(storage, options)}") from None
    except KeyboardInterrupt:  # before or after training, which handles its own
        console.print(
            f"Interrupted. To go on: {options.command.text(storage)}", highlight=False, markup=False, soft_wrap=True
        )
        return INTERRUPTED


def _advice(storage: Storage, options: Options) -> str:
    return f"what is done is recorded, and the same command goes on: {options.command.text(storage)}"


def _launch(plan: Plan, storage: Storage, options: Options, console: Console) -> int:
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    snapshot.delete(storage)
    driver = Driver(
        plan,
        Ledger(storage),
        retry_failed=options.retry_failed,
        max_failures=options.max_failures,
        data_dir=options.data_dir,
    )
    if driver.todo:
        _check_data(plan, options)
        disk_space.check(storage, driver.left(), options.data_dir)
    tracker = Tracker(options.tracking_uri, plan, storage, options.data_dir, driver.unfoldings)
    with contextlib.ExitStack() as stack:
        resources = _ray(stack, storage, options, console) if driver.todo else None
        if resources is not None and options.address is not None:
            _check_nodes(plan, resources, storage, options)
        # Saved only here, after all checks have passed.
        saved.save_plan(storage, plan.overrides)
        sessions.record(storage, plan.overrides, options.command)
        progress = _progress(driver, storage, options, console)
        finished = _run(driver, tracker, progress, resources, storage, options, console)
    if not finished:
        console.print("Interrupted; finished members are recorded.", highlight=False)
    # Whoever interrupts a run waits for its end, and figures take seconds.
    report = _write_outputs(driver, tracker, storage, options, console, drawn=finished)
    _summarize(driver, tracker, storage, report, options.tracking_uri, console)
    if finished:
        _keep(driver, tracker, storage, report, options, console)
    code = _conclude(driver, storage, options.command, console, interrupted=not finished)
    if options.log_json:
        found = summary.summary(driver.unfoldings, driver.members(), driver.current(), driver.trained)
        JsonLog(sys.stdout).write("summary", report=report, exit_code=code, **dataclasses.asdict(found))
    return code


def _ray(stack: contextlib.ExitStack, storage: Storage, options: Options, console: Console) -> "Resources":
    """Starts Ray, or joins a cluster, until the end of the stack."""
    console.print("Starting Ray …", highlight=False)
    from sweeps.on_ray.cluster import connected  # Ray takes seconds to import; not needed if nothing is left to train

    ray = connected(
        address=options.address,
        device=options.device,
        workers=options.workers,
        max_concurrent=options.max_concurrent,
        per_gpu=options.per_gpu,
        token_folder=storage.local_path if storage.local else None,
        advice=_advice(storage, options),
    )
    with waiting(console, "Ray is starting"):
        return stack.enter_context(ray)


def _progress(driver: Driver, storage: Storage, options: Options, console: Console) -> Progress:
    plan, pace = driver.plan, None
    if driver.todo:
        expected = {study.name: plan.expected(study) for study in plan.studies}
        pace = Pace(expected, Workload(plan, options.data_dir).of)
    return Progress(console, driver.unfoldings, pace, keep=lambda now: now.write(storage))


def _run(
    driver: Driver,
    tracker: Tracker,
    progress: Progress,
    resources: "Resources | None",
    storage: Storage,
    options: Options,
    console: Console,
) -> bool:
    """Trains what is left, if there are resources; returns False if it was interrupted."""
    progress.found(driver.members(), driver.settled())
    driver.listen(progress, tracker, *([JsonLog(sys.stdout, metrics=options.log_metrics)] if options.log_json else []))
    tracker.start(driver.members(), driver.settled())
    status: Literal["FINISHED", "FAILED", "KILLED"] | None = "FAILED"
    try:
        if resources is not None:
            _train(driver, progress, resources, storage, options)
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
    except LockLostError:
        status = None  # the tracker may close no run of the other driver
        raise
    finally:
        try:
            snapshot.delete(storage)
        finally:
            with waiting(console, "MLflow is being completed"):
                tracker.close(status)
    return status == "FINISHED"


def _train(driver: Driver, progress: Progress, resources: "Resources", storage: Storage, options: Options) -> None:
    from sweeps.on_ray import execute

    driver.begin(slots=resources.slots, pack=options.pack)
    places = execute.Places(
        checkpoints=joined(storage.full_uri, "checkpoints"), data_dir=options.data_dir, permit=permit(storage)
    )
    with progress:
        try:
            execute.execute(driver, resources, places, probe=options.pack is None, max_hours=options.max_hours)
        except LockLostError:
            raise
        except UserError as error:
            raise UserError(f"{error}; {_advice(storage, options)}") from None


def _check_data(plan: Plan, options: Options) -> None:
    for name in sorted(plan.data_sets):
        try:
            (download if options.download else load)(name, options.data_dir)
        except DataError as error:
            raise UserError(f"data set {name!r}: {error}") from None


def _check_nodes(plan: Plan, resources: "Resources", storage: Storage, options: Options) -> None:
    from sweeps.on_ray import reach

    fetch, device = options.download, resources.device
    reach.check(plan.data_sets, options.data_dir, fetch=fetch, device=device, storage=storage)


def _write_outputs(
    driver: Driver, tracker: Tracker, storage: Storage, options: Options, console: Console, *, drawn: bool
) -> str | None:
    """Writes tables and report, and returns the report's path or URI. A failure is printed; no result is lost."""
    words = [storage.name, *driver.plan.original.words[1:], "--storage", storage.uri]
    command = shlex.join(["python", "-m", "sweeps.report", *words])
    try:
        with waiting(console, "The report is being written"):
            report = write_outputs(
                storage,
                driver.unfoldings,
                driver.current(),
                tracker.run_ids,
                options.data_dir,
                tracker.links(),
                drawn=drawn,
            )
    except LockLostError:
        raise
    except Exception as error:  # drawing and writing can fail in many ways; training is done
        log.debug("the report could not be written", exc_info=True)
        reason = redact(f"{type(error).__name__}: {first_line(error)}")
        console.print(
            f"The report could not be written ({reason}); the results are recorded. To write it: {command}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
        return None
    tracker.publish_report()
    if not drawn:
        text = f"The report has no figures, since the run was interrupted. To draw them: {command}"
        console.print(text, highlight=False, markup=False, soft_wrap=True)
    return report


def _summarize(
    driver: Driver, tracker: Tracker, storage: Storage, report: str | None, tracking_uri: str, console: Console
) -> None:
    lines = summary.summary(driver.unfoldings, driver.members(), driver.current(), driver.trained).lines()
    if tracker.problem:
        file = foreign(tracking_uri)
        remedy = f"move {file} away, then run" if file else "run"
        lines.append(f"MLflow is incomplete ({tracker.problem}); {remedy} the same command again to complete it.")
    lines += [f"Report: {report}"] if report else []
    if command := ui_command(storage, tracking_uri):
        lines.append(f"MLflow: {command}")
    shown = list(tracker.links().items())
    lines += [f"Members of {study}, the best first: {link}" for study, link in shown[:_LINKS]]
    for line in lines:
        console.print(redact(line), highlight=False, soft_wrap=True)


def _keep(
    driver: Driver, tracker: Tracker, storage: Storage, report: str | None, options: Options, console: Console
) -> None:
    """Deletes the weights that --keep does not ask for, once all that is made of them has been made."""
    keys = wanted(options.keep, driver.unfoldings, driver.current())
    if keys is None:
        return
    why = "the report could not be written" if report is None else "MLflow is incomplete" if tracker.problem else ""
    if not why:
        try:
            remove_weights(storage, driver.current(), keys)
        except LockLostError:
            raise
        except (UserError, OSError) as error:
            why = redact(first_line(error))
    if why:
        console.print(
            f"--keep {options.keep}: not all weights were deleted ({why}); the next run of this command tries again.",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )


def _conclude(driver: Driver, storage: Storage, command: Command, console: Console, *, interrupted: bool) -> int:
    reasons = sorted({row.reason or "" for row in driver.current().values() if row.status == "failed"})
    if interrupted:
        console.print(f"To continue: {command.text(storage)}", highlight=False, soft_wrap=True)
        return INTERRUPTED
    for reason in driver.blocked:
        console.print(f"Not trained: {reason}.", highlight=False, soft_wrap=True)
    if driver.gave_up:
        console.print(
            f"Stopped after {driver.failures} failures (--max-failures); the other members were not trained.",
            highlight=False,
            soft_wrap=True,
        )
    for cause in causes(driver.current().values())[:CAUSES]:
        console.print(f"Failed by {cause}", highlight=False, markup=False, soft_wrap=True)
    if reasons:
        console.print(
            f"Some members failed ({', '.join(reasons)}); to train them again: "
            f"{command.text(storage, '--retry-failed')}",
            highlight=False,
            soft_wrap=True,
        )
        return SOME_FAILED
    return SOME_FAILED if driver.blocked else OK
