"""How long a run still takes, from the work that was planned and the rate at which this run works.

Work is what trainings cost, in any unit; the driver counts floating-point operations (`sweeps.planning.schedule`). Two
estimates, and the longer one counts. All that is left, at the rate of this run: right while every slot is busy. The
cohort in training that ends last, at its own rate: right at the end, when slots are empty.

Between reports the estimate falls with the clock, so it rises only if a report brings news.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from sweeps.planning.plan import Member
from sweeps.records.ledger import Row


@dataclass
class _Cohort:
    """A cohort in training: when it first and last reported, and after which epochs.

    What it took up to its first report does not count: starting and compiling happen once.
    """

    first_s: float = 0.0
    first_epoch: int | None = None
    epoch: int = 0
    reported_s: float = 0.0

    def ends_s(self, epochs: int) -> float:
        """When it will have trained so many epochs, at its own rate; 0 if that is not known yet."""
        trained = self.epoch - (self.first_epoch or 0)
        if not trained:
            return 0.0
        return self.reported_s + (self.reported_s - self.first_s) / trained * (epochs - self.epoch)

    def reached(self, epoch: int, now_s: float) -> None:
        if self.first_epoch is None or epoch <= self.epoch:  # it begins, or goes on from an earlier checkpoint
            self.first_epoch, self.first_s = epoch, now_s
        self.epoch, self.reported_s = epoch, now_s


class Pace:
    """Counts the work that is done and left.

    Args:
        expected: the members of each study, by its name; others of the same cost for those not known yet.
        cost: of a whole training.
        clock: in seconds.
    """

    def __init__(
        self,
        expected: Mapping[str, Sequence[Member]],
        cost: Callable[[Member], float],
        clock: Callable[[], float] = time.monotonic,
    ):
        self._cost, self._clock = cost, clock
        self._owner: dict[str, str] = {}
        """The study that the work of a member counts for: the first of those that share it."""
        self._planned: dict[str, tuple[float, int]] = {}
        """The cost of each study's members, and how many they are."""
        for study, members in expected.items():
            own = [member for member in members if self._owner.setdefault(member.key, study) == study]
            self._planned[study] = sum(map(cost, own)), len(members)
        self._spent: dict[str, float] = defaultdict(float)
        """By study, the work that need not be done any more."""
        self._epochs: dict[str, int] = defaultdict(int)
        """By member, the epochs that need not be trained any more."""
        self._ended: set[str] = set()
        self._begun: set[str] = set()
        self._cohorts: dict[str, tuple[Member, _Cohort]] = {}
        """Cohorts in training, by the key of each member."""
        self._worked = 0.0
        """The work done in this run."""
        self._began_s: float | None = None
        self._reported_s = 0.0

    def began(self, members: Iterable[Member]) -> None:
        """A cohort is handed out."""
        now = self._clock()
        self._began_s = now if self._began_s is None else self._began_s
        cohort = _Cohort()
        for member in members:
            self._begun.add(member.key)
            self._cohorts[member.key] = (member, cohort)

    def reached(self, members: Sequence[Member], since: int, epochs: int) -> None:
        """A cohort has trained some epochs after `since`."""
        self._reported_s = self._clock()
        for member in members:
            self._cohorts.setdefault(member.key, (member, _Cohort()))
            self._advance(member, since)
            self._worked += self._advance(member, since + epochs)
        for cohort in {id(own): own for own in (self._cohorts[member.key][1] for member in members)}.values():
            cohort.reached(since + epochs, self._reported_s)

    def ended(self, members: Iterable[Member], rows: Mapping[str, Row]) -> None:
        """Members have ended, in this run or before it."""
        for member in members:
            if member.key in self._ended:
                continue
            if member.key in self._begun:
                self._reported_s = self._clock()
                self._worked += self._advance(member, rows[member.key].epochs)
            self._advance(member, member.config.epochs)  # one that stopped early leaves no work
            self._ended.add(member.key)
            self._cohorts.pop(member.key, None)

    def _advance(self, member: Member, epoch: int) -> float:
        """Moves a member to an epoch, and returns the work between; less than 0 if it was further."""
        work = self._cost(member) * (epoch - self._epochs[member.key]) / member.config.epochs
        self._epochs[member.key] = epoch
        self._spent[self._owner.get(member.key, member.study)] += work
        return work

    def left_s(self, sizes: Mapping[str, int] | None = None) -> float | None:
        """About how many seconds the run still takes; None until something was trained in it.

        Args:
            sizes: how many members each study has, if that has become known to differ from what was expected.
        """
        now = self._clock()
        if self._began_s is None or self._worked <= 0 or self._reported_s <= self._began_s:
            return None
        left = 0.0
        for study, (cost, count) in self._planned.items():
            size = count if sizes is None else sizes.get(study, count)
            left += max(0.0, cost * size / max(1, count) - self._spent[study])
        ends = self._reported_s + left * (self._reported_s - self._began_s) / self._worked
        last = max((cohort.ends_s(member.config.epochs) for member, cohort in self._cohorts.values()), default=0.0)
        return max(0.0, ends - now, last - now)

    def rate(self) -> float | None:
        """Work a second in this run; None until something was trained."""
        if self._began_s is None or self._reported_s <= self._began_s:
            return None
        return self._worked / (self._reported_s - self._began_s)
