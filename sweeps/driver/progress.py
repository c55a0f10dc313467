"""The progress view of a running sweep: a live table on a terminal, otherwise a line now and then."""

import contextlib
import math
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from rich.console import Console, Group, JustifyMethod, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.text import Text

from search_spaces.space import Study
from sweeps.analysis.best import best
from sweeps.analysis.failures import failure
from sweeps.analysis.labels import describe, duration
from sweeps.cli import fitting
from sweeps.errors import UserError
from sweeps.planning.pace import Pace
from sweeps.planning.plan import Counted, Member
from sweeps.records.ledger import Row
from sweeps.records.snapshot import InTraining, RunSnapshot

LINE_EVERY_S, QUIET_S = 10.0, 30.0
"""Seconds between two lines: at least, if there is news, and at most."""
FAILURES_TOLD = 20
"""The number of failures that are printed; more would push everything else off the screen."""
_BARS, _SPARKS = "▁▂▃▄▅▆▇█", 16
_COLUMNS: dict[str, JustifyMethod] = {
    "study": "left",
    "": "left",
    "done": "right",
    "running": "right",
    "failed": "right",
    "epoch": "right",
    "by epoch": "left",
    "best so far": "left",
}
_NARROW = 100
"""Width of a terminal, in columns, below which a study may take several lines."""


def sparkline(values: Sequence[float], width: int = _SPARKS) -> str:
    """Numbers as a row of at most `width` bars; the largest number has the highest bar."""
    shown = np.asarray(values, float)
    shown = shown[np.isfinite(shown)]
    if len(shown) < 2:
        return ""
    shown = shown[np.linspace(0, len(shown) - 1, min(width, len(shown))).round().astype(int)]
    low, span = shown.min(), np.ptp(shown) or 1.0
    return "".join(_BARS[round((len(_BARS) - 1) * (value - low) / span)] for value in shown)


class _Course:
    """Progress of a study: its members by status, their rows, and the best value of its metric by epoch."""

    def __init__(self, study: Study):
        self.study = study
        self.counts: Counter[str] = Counter()
        self._members: dict[str, tuple[Member, str]] = {}
        """Members that have begun or ended, with their status, by key."""
        self._rows: dict[str, Row] = {}
        self._curve: dict[int, float] = {}
        """By epoch, the best value of the metric among members trained in this run."""
        self._epochs: dict[str, int] = {}
        """The last epoch of each member in training."""
        self._best: str | None = None
        """Cached until another member ends, since the choice reads all rows."""

    def set(self, member: Member, status: str, row: Row | None = None) -> None:
        if member.key in self._members:
            self.counts[self._members[member.key][1]] -= 1
        self._members[member.key] = member, status
        self.counts[status] += 1
        if row is not None:
            self._rows[member.key], self._best = row, None
            self._epochs.pop(member.key, None)
        else:
            self._epochs[member.key] = 0

    def follow(self, members: Sequence[Member], since: int, values: np.ndarray | None, epochs: int) -> None:
        """Adds the metric [epochs, members] of the epochs after `since`; None if it was not measured."""
        for member in members:
            self._epochs[member.key] = since + epochs
        sign = 1 if self.study.mode == "min" else -1
        for epoch, of_epoch in enumerate(() if values is None else values, start=since + 1):
            finite = of_epoch[np.isfinite(of_epoch)].tolist()
            if finite:
                known = self._curve.get(epoch, sign * math.inf)
                self._curve[epoch] = sign * min(sign * value for value in (*finite, known))

    @property
    def done(self) -> int:
        return self.counts["finished"] + self.counts["stopped"]

    def in_training(self) -> InTraining | None:
        """Progress of the members in training; None if there are none."""
        if not self._epochs:
            return None
        key, epoch = max(self._epochs.items(), key=lambda each: each[1])
        sign = 1 if self.study.mode == "min" else -1
        value = sign * min(sign * value for value in self._curve.values()) if self._curve else None
        return InTraining(epoch, self._members[key][0].config.epochs, value)

    def best(self) -> str:
        """The best configuration that has ended; before there is one, the best value in training."""
        if self._best is None:
            members = [member for member, _ in self._members.values()]
            self._best = str(best(self.study, members, self._rows) or "")
        now = self.in_training()
        if self._best or now is None or now.value is None:
            return self._best
        return f"{self.study.metric} {now.value:.4g}, best member in training"

    def cells(self, total: int) -> list[RenderableType]:
        """The study's row of the table. total: number of its members."""
        ended, now = self.done + self.counts["failed"], self.in_training()
        return [
            self.study.name,
            ProgressBar(total=total, completed=ended, width=20),
            f"{self.done}/{total}",
            str(self.counts["running"] or ""),
            str(self.counts["failed"] or ""),
            f"{now.epoch}/{now.epochs}" if now else "",
            sparkline([value for _, value in sorted(self._curve.items())]),
            self.best(),
        ]


class Progress:
    """Counts members and shows them.

    Args:
        console: the console to print to.
        plan: the studies and their numbers of members.
        pace: estimates the time left; None shows no estimate.
        keep: called with a snapshot of the progress at most every ten seconds, for `sweeps.status`.
    """

    def __init__(
        self,
        console: Console,
        plan: Counted,
        pace: Pace | None = None,
        keep: Callable[[RunSnapshot], None] = lambda snapshot: None,
    ):
        self._console, self._pace, self._keep = console, pace, keep
        self._plan = plan
        self._courses = {study.name: _Course(study) for study in plan.studies}
        self._failures = 0
        self._status: dict[str, str] = {}
        """The status of each member that has begun or ended; studies that share a member count it once here."""
        self._epochs: dict[str, int] = defaultdict(int)
        """The last epoch of each member that has trained in this run."""
        self._trained_epochs = 0
        self._started = time.monotonic()
        self._last_line = self._last_kept = -math.inf
        self._live = Live(get_renderable=self._render, console=console, refresh_per_second=4, transient=True)

    def __enter__(self) -> "Progress":
        self._started = time.monotonic()
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._console.is_terminal:
            self._live.stop()
        else:
            self._line(every_s=0)

    def found(self, members: Iterable[Member], rows: Mapping[str, Row]) -> None:
        """Adds members that ended in an earlier run."""
        ended = [member for member in members if member.key in rows]
        for member in ended:
            self._set(member, rows[member.key].status, rows[member.key])
        if self._pace is not None:
            self._pace.ended(ended, rows)

    def tick(self) -> None:
        """Prints a line if none was printed for long, as in a long epoch."""
        if time.monotonic() - self._started >= QUIET_S:
            self._line(every_s=QUIET_S)

    def started(self, members: Sequence[Member]) -> None:
        """Adds a cohort that begins to train."""
        for member in members:
            self._set(member, "running")
        if self._pace is not None:
            self._pace.began(members)

    def progressed(self, members: Sequence[Member], since: int, history: Mapping[str, np.ndarray]) -> None:
        epochs = len(next(iter(history.values()), ()))
        for member in members:
            self._trained(member, since + epochs)
        for name in dict.fromkeys(member.study for member in members):
            course = self._courses[name]
            lanes = [lane for lane, member in enumerate(members) if member.study == name]
            values = history.get(course.study.metric)
            own = None if values is None else values[:, lanes]
            course.follow([members[lane] for lane in lanes], since, own, epochs)
        if self._pace is not None:
            self._pace.reached(members, since, epochs)
        self._told()

    def ended(self, members: Sequence[Member], rows: Mapping[str, Row]) -> None:
        for member in members:
            row = rows[member.key]
            self._set(member, row.status, row)
            self._trained(member, row.epochs)
            if row.status == "failed":
                self._tell_failure(member, row)
        if self._pace is not None:
            self._pace.ended(members, rows)
        self._told()

    def counts(self) -> dict[str, Counter[str]]:
        """Members by study and status."""
        return {name: course.counts for name, course in self._courses.items()}

    def left_s(self) -> float | None:
        """Estimated seconds until the run ends; None if unknown."""
        if self._pace is None:
            return None
        return self._pace.left_s(self._sizes())

    def _sizes(self) -> dict[str, int]:
        """Number of members by study. Not cached: fewer members can become known than were planned."""
        return {study.name: self._plan.size(study) for study in self._plan.studies}

    def _set(self, member: Member, status: str, row: Row | None = None) -> None:
        self._status[member.key] = status
        self._courses[member.study].set(member, status, row)

    def _trained(self, member: Member, epoch: int) -> None:
        self._trained_epochs += max(0, epoch - self._epochs[member.key])
        self._epochs[member.key] = max(self._epochs[member.key], epoch)

    def _tell_failure(self, member: Member, row: Row) -> None:
        self._failures += 1
        if self._failures <= FAILURES_TOLD:
            what = f"{member.study}: {describe(member.labels)}, seed {member.config.seed}"
            text = f"Failed: {what}: {failure(row)}"
            self._console.print(text, style="red", highlight=False, markup=False, soft_wrap=True)
        elif self._failures == FAILURES_TOLD + 1:
            self._console.print("There are more failures; the report lists them.", style="red", highlight=False)

    def _render(self) -> Group:
        # Studies with members in training come first, in case not all fit on the screen.
        courses = sorted(self._courses.values(), key=lambda course: not course.counts["running"])
        room = max(1, (self._console.height - 6) // (4 if self._console.width < _NARROW else 1))
        table = fitting(
            self._console, _COLUMNS, [course.cells(self._plan.size(course.study)) for course in courses[:room]]
        )
        more = f"{len(courses) - room} more studies. " if len(courses) > room else ""
        return Group(table, Text(more + self._rate_text(), style="dim"))

    def _rate_text(self) -> str:
        elapsed = time.monotonic() - self._started
        left_s = self.left_s()
        rate = self._trained_epochs / max(elapsed, 1e-9)
        told = f"{rate:.{0 if rate >= 10 else 1}f} epochs/s" if self._trained_epochs else "starting"
        return f"{duration(elapsed)}, {told}" + (f", about {duration(left_s)} left" if left_s is not None else "")

    def _told(self) -> None:
        """Prints a line and keeps a snapshot, if they are due."""
        self._line()
        if time.monotonic() - self._last_kept >= LINE_EVERY_S:
            self._last_kept = time.monotonic()
            in_training = {name: course.in_training() for name, course in self._courses.items()}
            with contextlib.suppress(UserError):  # the ledger reports a storage that cannot be written
                self._keep(RunSnapshot(self.left_s(), {name: now for name, now in in_training.items() if now}))

    def _line(self, every_s: float = LINE_EVERY_S) -> None:
        if self._console.is_terminal or time.monotonic() - self._last_line < every_s:
            return
        self._last_line = time.monotonic()
        count = Counter(self._status.values())
        done = count["finished"] + count["stopped"]
        self._console.print(
            f"{done}/{self._plan.total()} done, {count['running']} running, {count['failed']} failed; "
            f"{self._rate_text()}",
            highlight=False,
            soft_wrap=True,
        )
