"""What a person sees while a sweep runs: a live table on a terminal, a line now and then elsewhere."""

import math
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from search_spaces.space import Study
from sweeps.analysis.labels import describe
from sweeps.planning.plan import Counted, Member
from sweeps.records.ledger import Row

LINE_EVERY_S = 10.0
FAILURES_TOLD = 20
"""Of which a run says a line each; more would push everything else from the screen."""
_BARS, _SPARKS = "▁▂▃▄▅▆▇█", 16
_ENDED = ("finished", "failed", "stopped")


def sparkline(values: Sequence[float], width: int = _SPARKS) -> str:
    """Numbers as a row of bars, at most `width`, the highest for the largest."""
    shown = np.asarray(values, float)
    shown = shown[np.isfinite(shown)]
    if len(shown) < 2:
        return ""
    shown = shown[np.linspace(0, len(shown) - 1, min(width, len(shown))).round().astype(int)]
    low, span = shown.min(), np.ptp(shown) or 1.0
    return "".join(_BARS[round((len(_BARS) - 1) * (value - low) / span)] for value in shown)


class Progress:
    """Counts members and shows them."""

    def __init__(self, console: Console, plan: Counted):
        self._console = console
        self._studies = {study.name: study for study in plan.studies}
        self._totals = {study.name: plan.size(study) for study in plan.studies}
        self._status: dict[tuple[str, str], str] = {}
        self._counts: dict[str, Counter[str]] = {study.name: Counter() for study in plan.studies}
        self._best: dict[str, tuple[float, Member]] = {}
        self._curves: dict[str, dict[int, float]] = defaultdict(dict)
        """Of each study the best value of its metric after each epoch, among members trained now."""
        self._failures = 0
        self._epochs: dict[str, int] = {}
        """Of each member that has trained in this run; `_trained_epochs` is their sum."""
        self._trained_epochs = 0
        self._started = time.monotonic()
        self._last_line = -math.inf
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
            self._line(force=True)

    def found(self, members: Iterable[Member], rows: Mapping[str, Row]) -> None:
        """Takes in members that an earlier run has done."""
        for member in members:
            if member.key in rows:
                self._take(member, rows[member.key])

    def started(self, members: Sequence[Member]) -> None:
        """A cohort begins."""
        for member in members:
            self._set_status(member, "running")

    def progressed(self, members: Sequence[Member], since: int, history: Mapping[str, np.ndarray]) -> None:
        epochs = len(next(iter(history.values()), ()))
        for member in members:
            self._trained(member, since + epochs)
        self._follow(members, since, history)
        self._line()

    def ended(self, members: Sequence[Member], rows: Mapping[str, Row]) -> None:
        for member in members:
            self._take(member, rows[member.key])
            self._trained(member, rows[member.key].epochs)
            if rows[member.key].status == "failed":
                self._tell_failure(member, rows[member.key])
        self._line()

    def _tell_failure(self, member: Member, row: Row) -> None:
        self._failures += 1
        if self._failures <= FAILURES_TOLD:
            what = f"{member.study}: {describe(member.labels)}, seed {member.config.seed}"
            text = f"Failed: {what}: {row.reason} in epoch {row.epochs}"
            self._console.print(text, style="red", highlight=False, soft_wrap=True)
        elif self._failures == FAILURES_TOLD + 1:
            self._console.print("More failures; the report lists them.", style="red", highlight=False)

    def _follow(self, members: Sequence[Member], since: int, history: Mapping[str, np.ndarray]) -> None:
        for name in dict.fromkeys(member.study for member in members):
            study = self._studies[name]
            if study.metric not in history:
                continue
            lanes = [lane for lane, member in enumerate(members) if member.study == name]
            sign = 1 if study.mode == "min" else -1
            for epoch, values in enumerate(history[study.metric][:, lanes], start=since + 1):
                finite = values[np.isfinite(values)].tolist()
                if finite:
                    known = self._curves[name].get(epoch, sign * math.inf)
                    self._curves[name][epoch] = sign * min(sign * value for value in (*finite, known))

    def _trained(self, member: Member, epoch: int) -> None:
        before = self._epochs.get(member.key, 0)
        self._trained_epochs += max(0, epoch - before)
        self._epochs[member.key] = max(before, epoch)

    def _set_status(self, member: Member, status: str) -> None:
        counts, name = self._counts[member.study], (member.study, member.key)
        if name in self._status:
            counts[self._status[name]] -= 1
        self._status[name] = status
        counts[status] += 1

    def _take(self, member: Member, row: Row) -> None:
        self._set_status(member, row.status)
        study = self._studies[member.study]
        value = row.metrics.get(study.metric)
        if value is None or row.status == "failed":
            return
        sign = 1 if study.mode == "min" else -1
        if study.name not in self._best or sign * value < sign * self._best[study.name][0]:
            self._best[study.name] = (value, member)

    def counts(self) -> dict[str, Counter[str]]:
        """Members by study and status."""
        return self._counts

    def _eta_s(self) -> float | None:
        """Seconds left: members left times the mean epochs of one that has trained, at the rate so far."""
        elapsed = time.monotonic() - self._started
        ended = sum(own[status] for own in self._counts.values() for status in _ENDED)
        left = sum(self._totals.values()) - ended
        if not self._trained_epochs or not self._epochs:
            return None
        mean = self._trained_epochs / len(self._epochs)
        return left * mean * elapsed / self._trained_epochs

    def _render(self) -> Group:
        table = Table(box=None, padding=(0, 2, 0, 0))
        for heading in ("study", "", "done", "running", "failed", "by epoch", "best so far"):
            table.add_column(heading, justify="right" if heading in ("done", "running", "failed") else "left")
        counts = self.counts()
        # What is at work comes first, in case not all fits on the screen.
        names = sorted(self._studies, key=lambda name: not counts[name]["running"])
        room = max(1, self._console.height - 6)
        for name in names[:room]:
            study, own, total = self._studies[name], counts[name], self._totals[name]
            done = own["finished"] + own["stopped"]
            table.add_row(
                name,
                ProgressBar(total=total, completed=done + own["failed"], width=20),
                f"{done}/{total}",
                str(own["running"] or ""),
                str(own["failed"] or ""),
                sparkline([value for _, value in sorted(self._curves[name].items())]),
                self._best_text(study),
            )
        more = f"{len(names) - room} more studies. " if len(names) > room else ""
        return Group(table, Text(more + self._rate_text(), style="dim"))

    def _best_text(self, study: Study) -> str:
        if study.name not in self._best:
            return ""
        value, member = self._best[study.name]
        return f"{study.metric} {value:.4g} ({describe(member.labels)})"

    def _rate_text(self) -> str:
        elapsed = time.monotonic() - self._started
        eta = self._eta_s()
        rate = f"{self._trained_epochs / max(elapsed, 1e-9):.0f} epochs/s" if self._trained_epochs else "starting"
        return f"{elapsed:.0f} s, {rate}" + (f", about {eta:.0f} s left" if eta is not None else "")

    def _line(self, force: bool = False) -> None:
        if self._console.is_terminal or (not force and time.monotonic() - self._last_line < LINE_EVERY_S):
            return
        self._last_line = time.monotonic()
        counts = self.counts()
        done, running, failed = (
            sum(own[status] for own in counts.values() for status in statuses)
            for statuses in (("finished", "stopped"), ("running",), ("failed",))
        )
        self._console.print(
            f"{done}/{sum(self._totals.values())} done, {running} running, {failed} failed; {self._rate_text()}",
            highlight=False,
            soft_wrap=True,
        )
