"""python -m sweeps.run NAME: trains the members of a sweep that are not trained yet, and writes the report."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

import typer
from rich.console import Console, JustifyMethod

from search_spaces import get_sweep, list_sweeps
from search_spaces.derived import command_words
from search_spaces.scale import SCALES
from search_spaces.space import Sampler
from sweeps.cli import LongConsole, Studies, check_device, fitting, given, run_app, show, single
from sweeps.errors import OK, UserError

if TYPE_CHECKING:
    from sweeps.planning.known_rates import Rates
    from sweeps.planning.plan import Plan, SearchOptions
    from sweeps.records.storage import Storage

LOG_FORMATS = ("text", "json", "json-metrics")
_COLUMNS: dict[str, JustifyMethod] = {
    **dict.fromkeys(("study", "source", "data"), "left"),
    **dict.fromkeys(("members", "done", "cohorts", "epochs left", "hours", "MB"), "right"),
}
_LISTED: dict[str, JustifyMethod] = {
    **dict.fromkeys(("sweep", "title"), "left"),
    **dict.fromkeys(("studies", "members", "hours"), "right"),
}
NOT_REPEATED = ("list_", "plan", "fresh", "storage")
"""Parameters that the command to continue leaves out: some hold for one call only; the storage may have moved."""


def run(
    context: typer.Context,
    name: Annotated[
        str | None, typer.Argument(help="Name of the sweep; --list shows all names.", show_default=False)
    ] = None,
    list_: Annotated[
        bool, typer.Option("--list", help="List the sweeps and exit; with --plan, also their members and hours.")
    ] = False,
    plan: Annotated[bool, typer.Option("--plan", help="Print what would be trained, and exit.")] = False,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Train failed members again.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Fail if the sweep was already run in this storage.")] = False,
    max_failures: Annotated[int | None, typer.Option(min=1, help="Stop after this many failed members.")] = None,
    max_hours: Annotated[
        float | None, typer.Option(help="Stop after this many hours, as after Ctrl-C; the same command continues.")
    ] = None,
    only: Annotated[
        str | None, typer.Option(metavar="GLOB", help="Only the studies that match, and the studies they depend on.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Set a field of every configuration that has it; repeatable."),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="Seeds of every study that compares; a study that chooses keeps its own.")
    ] = None,
    confirm: Annotated[
        int | None,
        typer.Option(min=2, help="Train the best configurations again with this many fresh seeds, which alone judge."),
    ] = None,
    studies: Studies = None,
    scale: Annotated[
        str, typer.Option(help="full, or a reduced scale: smoke or day; its results are marked.")
    ] = "full",
    search: Annotated[
        str | None,
        typer.Option(metavar="SAMPLER", help="Search the ranges of the grids with Optuna: tpe, gp or random."),
    ] = None,
    budget: Annotated[
        int | None,
        typer.Option(
            min=1, help="Largest number of members of each searched study, all seeds counted; default: as in its grid."
        ),
    ] = None,
    halving: Annotated[
        int | None,
        typer.Option(
            min=1, help="In a search, continue the best 1/N of a batch at each rung; 1 stops none; default: 3."
        ),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            metavar="auto|float32|bf16",
            help="Precision of all configurations; auto: bf16 where measurements show almost no change, else float32. "
            "Default: float32, unless the study says otherwise.",
        ),
    ] = None,
    stand_in: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=OTHER", help="Use data set OTHER in place of NAME; repeatable."),
    ] = None,
    storage: Annotated[
        str, typer.Option(metavar="URI", help="Folder or URI for results, checkpoints and reports.")
    ] = "./runs",
    tracking_uri: Annotated[
        str | None,
        typer.Option(metavar="URI", help="MLflow's server or database; default: a file in the storage folder."),
    ] = None,
    data_dir: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the data sets.")] = Path("data"),
    download: Annotated[bool, typer.Option("--download", help="Download missing data sets.")] = False,
    device: Annotated[str, typer.Option(help="Device: auto, cpu or cuda.")] = "auto",
    pack: Annotated[
        str, typer.Option(metavar="auto|N", help="Largest number of members in a cohort; auto: as memory allows.")
    ] = "auto",
    workers: Annotated[
        int, typer.Option(min=1, help="Ray Train workers of a cohort; they share its members, or each batch.")
    ] = 1,
    per_gpu: Annotated[int, typer.Option(min=1, help="Number of cohorts, or of workers, that share a GPU.")] = 1,
    max_concurrent: Annotated[
        int | None, typer.Option(min=1, help="Largest number of cohorts trained at the same time.")
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(metavar="RAY_ADDRESS", help="Ray cluster to join; default: start Ray on this machine."),
    ] = None,
    keep: Annotated[
        str,
        typer.Option(
            metavar="best|last|none",
            help="Weights to keep at the end of the run: last (those of all members), best (those of registered "
            "models and of images in the report) or none.",
        ),
    ] = "last",
    log_format: Annotated[
        str,
        typer.Option(
            metavar="text|json|json-metrics",
            help="text, or for programs json (one object per line) or json-metrics (with the metrics of every member).",
        ),
    ] = "text",
) -> int:
    """Trains the members of a sweep that are not trained yet, and writes results, MLflow runs and the report.

    To continue after an interruption, run the same command again. Exit codes: 0 all done, 1 internal error, 2 unusable
    arguments, data or storage, 3 some members failed, 130 interrupted.
    """
    if list_:
        if plan:
            from sweeps.records.storage import Storage

            print_sizes(Console(), Storage(storage, "all"), device, data_dir.absolute(), studies)
        else:
            print_list(Console(), studies)
        return OK
    if name is None:
        raise UserError(f"give the name of a sweep: {', '.join(_names(studies))}")
    if (words := command_words(name)) != (name,):
        raise UserError(f"{name!r} is a derived sweep; run it with: python -m sweeps.run {shlex.join(words)}")
    if max_hours is not None and not max_hours > 0:
        raise UserError(f"--max-hours must be above 0, got {max_hours:g}")
    check_device(device)
    if log_format not in LOG_FORMATS:
        raise UserError(f"--log-format must be one of {', '.join(LOG_FORMATS)}, got {log_format!r}")
    largest = _pack(pack)

    # Imported late, since these take seconds to import.
    from sweeps.driver.keep import KEEPS, Keep
    from sweeps.planning import saved, stand_ins
    from sweeps.planning.command import called_here
    from sweeps.planning.plan import Overrides, Plan
    from sweeps.planning.settings import parse_setting
    from sweeps.records.lock import Lock
    from sweeps.records.storage import Storage
    from sweeps.tracking.uri import tracking_uri_of

    if keep not in KEEPS:
        raise UserError(f"--keep must be one of {', '.join(KEEPS)}, got {keep!r}")
    settings = tuple(parse_setting(text) for text in set_ or ())
    settings += _precision(precision, settings)
    wanted = Overrides(
        only=only,
        values=settings,
        seeds=seeds,
        scale=None if scale == "full" else scale,
        search=_search(search, budget, halving),
        stand_ins=tuple(stand_ins.parse(stand_in or ()).items()),
        confirm=confirm,
    )
    planned = Plan(saved.find_sweep(name, studies), wanted)
    if not download:
        planned = _with_stand_ins(planned, data_dir.absolute())
    place = Storage(storage, planned.sweep.name)
    console = LongConsole(stderr=log_format != "text")
    for line in (*planned.moved, *planned.never_frozen, *planned.unmeasured):
        console.print(line, highlight=False, soft_wrap=True)
    if kept := planned.kept_seeds:
        text = f"--seeds {seeds} is for comparisons. Studies that choose for them keep their seeds: {_some(kept)}."
        console.print(text, highlight=False, soft_wrap=True)
    if plan:
        print_plan(console, planned, place, device, largest, data_dir.absolute(), keep, retry_failed=retry_failed)
        return OK
    if fresh and place.exists():
        raise UserError(
            f"--fresh: {name!r} was already run in {place.uri!r}; use another storage, for example --storage ./runs-2"
        )
    tracking_uri = tracking_uri_of(place, tracking_uri)
    place.prepare()

    from sweeps.driver import launch  # imports MLflow, which --plan does not need

    options = launch.Options(
        command=called_here(given(context, NOT_REPEATED)),
        retry_failed=retry_failed,
        max_failures=max_failures,
        max_hours=max_hours,
        tracking_uri=tracking_uri,
        data_dir=data_dir.absolute(),
        download=download,
        device=device,
        pack=largest,
        workers=workers,
        per_gpu=per_gpu,
        max_concurrent=max_concurrent,
        address=address,
        keep=cast(Keep, keep),
        log_json=log_format != "text",
        log_metrics=log_format == "json-metrics",
    )
    with Lock(place):
        return launch.launch(planned, place, options, console)


def _search(sampler: str | None, budget: int | None, halving: int | None) -> "SearchOptions | None":
    from sweeps.planning.plan import SearchOptions

    if sampler is None:
        if budget is not None or halving is not None:
            raise UserError("--budget and --halving need a search; for example, add --search tpe")
        return None
    samplers = get_args(Sampler)
    if sampler not in samplers:
        raise UserError(f"--search must be one of {', '.join(samplers)}, got {sampler!r}")
    return SearchOptions(cast(Sampler, sampler), budget, SearchOptions.halving if halving is None else halving)


def _precision(precision: str | None, settings: Sequence[tuple[str, Any]]) -> tuple[tuple[str, str], ...]:
    """The setting that --precision stands for, if it was given. It is added to the settings of --set."""
    from sweeps.planning.precision import PRECISIONS

    if precision is None:
        return ()
    if precision not in PRECISIONS:
        raise UserError(f"--precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    if any(path == "precision" for path, _ in settings):
        raise UserError("--precision and --set precision=… are the same setting; give only one of them")
    return (("precision", precision),)


def _with_stand_ins(plan: "Plan", data_dir: Path) -> "Plan":
    """The plan, with missing data sets replaced by stand-ins if its scale allows them."""
    from sweeps.planning import stand_ins

    scale = plan.overrides.scale
    if scale is None or not SCALES[scale].stand_ins:
        return plan
    found = stand_ins.offered(plan.data_sets, data_dir)
    return plan.standing_in(found) if found else plan


def _pack(text: str) -> int | None:
    if text == "auto":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"--pack must be auto or a whole number from 1, got {text!r}")
    return int(text)


def print_plan(
    console: Console,
    plan: "Plan",
    storage: "Storage",
    device: str,
    pack: int | None,
    data_dir: Path,
    keep: str = "last",
    *,
    retry_failed: bool = False,
) -> None:
    """Prints the work that is left of a plan, one row a study."""
    from sweeps.planning import known_rates
    from sweeps.planning.estimate import estimate, slots_of
    from trainables.training import resolve_device

    kind = resolve_device(device).type
    known = known_rates.known(kind, storage.local_path.parent if storage.local else None)
    slots = slots_of(kind)
    found = estimate(plan, storage, rates=known, slots=slots, pack=pack, data_dir=data_dir, retry_failed=retry_failed)
    rows = []
    for one in found:
        counts = (f"{number:,}" for number in (one.members, one.done, one.cohorts, one.epochs))
        hours = _hours(one.hours, one.unmeasured)
        rows.append((one.name, one.source, one.data, *counts, hours, f"{one.bytes / 1e6:,.0f}"))
    show(console, fitting(console, _COLUMNS, rows, total=True))
    *studies, total = found
    parts = [_basis(slots, kind, known)]
    if missing := [one.name for one in studies if one.unmeasured]:
        parts.append(f"+ ?: no rates for {total.unmeasured:,} members, in {_some(missing)}")
    if kind == "cuda" and total.hours is not None:
        parts.append(f"{_hours(total.hours * slots, total.unmeasured)} GPU-hours in total")
    measure = shlex.join(["python", "-m", "sweeps.rates", *plan.original.words])
    parts.append(f"to measure this machine: {measure}")
    console.print("; ".join(parts), highlight=False, soft_wrap=True)
    if (confirm := plan.overrides.confirm) is not None:
        most = sum(map(plan.most_confirming, plan.studies))
        text = (
            f"--confirm {confirm}: at most {most:,} of the members confirm finalists. The finalists of a study are "
            "known when all its other members have ended; until then, the largest number counts."
        )
        console.print(text, highlight=False, soft_wrap=True)
    if total.failed:
        which = _some([f"{one.name} {one.failed:,}" for one in studies if one.failed])
        text = (
            f"Neither done nor left: {total.failed:,} members that failed ({which}); --retry-failed trains them again."
        )
        console.print(text, highlight=False, soft_wrap=True)
    if keep != "last":
        rest = "all weights" if keep == "none" else "all weights but the best"
        console.print(
            f"MB: space needed until the run ends. Then --keep {keep} deletes {rest}; all weights take about "
            f"{total.weights_bytes / 1e6:,.1f} MB.",
            highlight=False,
            soft_wrap=True,
        )


def _names(studies: Path | None) -> list[str]:
    try:
        return list_sweeps(studies)
    except OSError as error:
        raise UserError(str(error)) from None


def print_list(console: Console, studies: Path | None = None) -> None:
    """Prints all sweeps and how many studies they have."""
    sweeps = [get_sweep(name, studies) for name in _names(studies)]
    rows = [(sweep.name, sweep.title, str(len(sweep.studies))) for sweep in sweeps]
    show(console, fitting(console, dict(list(_LISTED.items())[:3]), rows))
    own = () if studies is None else ("--studies", str(studies))
    sizes = shlex.join(["python", "-m", "sweeps.run", "--list", "--plan", *own])
    console.print(f"With members and hours: {sizes}", highlight=False, soft_wrap=True)


def print_sizes(console: Console, storage: "Storage", device: str, data_dir: Path, studies: Path | None = None) -> None:
    """Prints all sweeps with studies, members and hours. It plans them all, which takes seconds."""
    from sweeps.planning import known_rates
    from sweeps.planning.estimate import size_of_sweep, slots_of
    from sweeps.planning.plan import Plan
    from trainables.training import resolve_device

    kind = resolve_device(device).type
    known = known_rates.known(kind, storage.local_path.parent if storage.local else None)
    slots = slots_of(kind)
    rows: list[tuple[str, ...]] = []
    for name in _names(studies):
        sweep = get_sweep(name, studies)
        try:
            size = size_of_sweep(Plan(sweep), rates=known, slots=slots, data_dir=data_dir)
        except UserError:  # a study that is not valid, or that needs images that are not there; --plan says which
            rows.append((name, sweep.title, str(len(sweep.studies)), "?", "?"))
        else:
            hours = _hours(size.hours, size.unmeasured)
            rows.append((name, sweep.title, f"{size.studies:,}", f"{size.members:,}", hours))
    show(console, fitting(console, _LISTED, rows))
    console.print(f"{_basis(slots, kind, known)}.", highlight=False, soft_wrap=not console.is_terminal)


def _hours(hours: float | None, unmeasured: int) -> str:
    if hours is None:
        return "?"
    return (f"{hours:,.2f}" if hours < 10 else f"{hours:,.0f}") + (" + ?" if unmeasured else "")


def _basis(slots: int, kind: str, known: "Rates | None") -> str:
    """What the hours are based on."""
    if known is None:
        return f"Hours: unknown, since no rates were measured for {kind} devices"
    return (
        f"Hours: with {slots} {kind} {'device' if slots == 1 else 'devices'} busy, at rates measured on {known.machine}"
    )


def _some(names: Sequence[str], most: int = 4) -> str:
    more = f" and {len(names) - most} more studies" if len(names) > most else ""
    return ", ".join(names[:most]) + more


if __name__ == "__main__":
    run_app(single(run), "python -m sweeps.run")
