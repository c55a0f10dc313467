"""Estimates how long a run still takes, from the planned work and the rate of this run.

Work is the cost of trainings, in any unit; the driver counts floating-point operations (`sweeps.planning.schedule`).
The estimate is the longer of two: all work left at the rate of this run, which is right while every slot is busy, and
the end of the last cohort in training at its own rate, which is right at the end, when slots are empty.

Between reports the estimate falls with the clock. It rises only after a report.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from sweeps.planning.plan import Member
from sweeps.records.ledger import Row


@dataclass
class _Speed:
    """The speed of a cohort in training: times and epochs of its first and last report.

    The time before its first report does not count, because starting and compiling happen only once.
    """

    first_s: float = 0.0
    first_epoch: int | None = None
    at_first: int = 0
    """Epochs that it had trained at its first report, without those of an earlier run."""
    epoch: int = 0
    reported_s: float = 0.0

    def ends_s(self, epochs: int) -> float:
        """The time at which it will have trained `epochs`, at its own rate; 0 if not known yet."""
        trained = self.epoch - (self.first_epoch or 0)
        if not trained:
            return 0.0
        return self.reported_s + (self.reported_s - self.first_s) / trained * (epochs - self.epoch)

    def began_s(self) -> float | None:
        """The time at which its training began, by its own rate; None before its second report."""
        trained = self.epoch - (self.first_epoch or 0)
        return self.first_s - self.at_first * (self.reported_s - self.first_s) / trained if trained else None

    def reached(self, epoch: int, now_s: float, since: int) -> None:
        if self.first_epoch is None or epoch <= self.epoch:  # it begins, or goes on from an earlier checkpoint
            self.first_epoch, self.first_s, self.at_first = epoch, now_s, epoch - since
        self.epoch, self.reported_s = epoch, now_s


class Pace:
    """Counts the work done and the work left.

    Args:
        expected: the members of each study by its name, or others of the same cost for members not known yet.
        cost: the cost of a whole training, in any unit.
        clock: returns the time in seconds.
    """

    def __init__(
        self,
        expected: Mapping[str, Sequence[Member]],
        cost: Callable[[Member], float],
        clock: Callable[[], float] = time.monotonic,
    ):
        self._cost, self._clock = cost, clock
        self._owner: dict[str, str] = {}
        """By member, the study for which its work counts: the first one that has the member."""
        self._planned: dict[str, tuple[float, int]] = {}
        """By study, the total cost of the members that it owns, and the number of all its members."""
        for study, members in expected.items():
            own = [member for member in members if self._owner.setdefault(member.key, study) == study]
            self._planned[study] = sum(map(cost, own)), len(members)
        self._spent: dict[str, float] = defaultdict(float)
        """By study, the work that is done or not needed any more."""
        self._epochs: dict[str, int] = defaultdict(int)
        """By member, the epochs that are trained or not needed any more."""
        self._ended: set[str] = set()
        self._begun: set[str] = set()
        self._cohorts: dict[str, tuple[Member, _Speed]] = {}
        """By key of a member in training, the member and its cohort."""
        self._worked = 0.0
        """The work done in this run."""
        self._began_s: float | None = None
        self._first: _Speed | None = None
        """The cohort that reported first; tells when training began after Ray and its processes had started."""
        self._reported_s = 0.0

    def began(self, members: Iterable[Member]) -> None:
        """Adds a cohort that was handed out."""
        now = self._clock()
        self._began_s = now if self._began_s is None else self._began_s
        cohort = _Speed()
        for member in members:
            self._begun.add(member.key)
            self._cohorts[member.key] = (member, cohort)

    def reached(self, members: Sequence[Member], since: int, epochs: int) -> None:
        """Adds the report of a cohort that has trained `epochs` epochs after `since`."""
        self._reported_s = self._clock()
        for member in members:
            self._cohorts.setdefault(member.key, (member, _Speed()))
            self._advance(member, since)
            self._worked += self._advance(member, since + epochs)
        for cohort in {id(own): own for own in (self._cohorts[member.key][1] for member in members)}.values():
            cohort.reached(since + epochs, self._reported_s, since)
            self._first = self._first or cohort

    def ended(self, members: Iterable[Member], rows: Mapping[str, Row]) -> None:
        """Adds members that have ended, in this run or before it."""
        for member in members:
            if member.key in self._ended:
                continue
            if member.key in self._begun:
                self._reported_s = self._clock()
                self._worked += self._advance(member, rows[member.key].epochs)
            self._advance(member, member.config.epochs)  # a member that stopped early leaves no work
            self._ended.add(member.key)
            self._cohorts.pop(member.key, None)

    def _advance(self, member: Member, epoch: int) -> float:
        """Moves a member to an epoch and returns the work in between; negative if the member was further."""
        work = self._cost(member) * (epoch - self._epochs[member.key]) / member.config.epochs
        self._epochs[member.key] = epoch
        self._spent[self._owner.get(member.key, member.study)] += work
        return work

    def left_s(self, sizes: Mapping[str, int] | None = None) -> float | None:
        """Estimated seconds until the run ends; None until something was trained in it.

        Args:
            sizes: number of members by study, if it may differ from the expected number.
        """
        now = self._clock()
        if self._began_s is None or self._worked <= 0 or self._reported_s <= self._began_s:
            return None
        left = 0.0
        for study, (cost, count) in self._planned.items():
            size = count if sizes is None else sizes.get(study, count)
            left += max(0.0, cost * size / max(1, count) - self._spent[study])
        trained_from = max(self._began_s, (self._first and self._first.began_s()) or 0.0)
        ends = self._reported_s + left * (self._reported_s - trained_from) / self._worked
        last = max((cohort.ends_s(member.config.epochs) for member, cohort in self._cohorts.values()), default=0.0)
        return max(0.0, ends - now, last - now)

    def rate(self) -> float | None:
        """Work per second in this run; None until a cohort has reported."""
        if self._began_s is None or self._reported_s <= self._began_s:
            return None
        return self._worked / (self._reported_s - self._began_s)
