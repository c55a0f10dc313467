"""The driver: hands out the members that the ledger lacks, and records their results.

It implements `sweeps.on_ray.execute.Work` and knows nothing of Ray. It runs on one thread.
"""

import math
from collections import defaultdict, deque
from collections.abc import Iterable, Sequence, Set
from pathlib import Path

from sweeps.driver.listener import Listener
from sweeps.errors import UserError
from sweeps.planning.plan import Member, Plan, PlannedCohort
from sweeps.planning.schedule import Workload, evenly, group
from sweeps.planning.unfold import unfold
from sweeps.records.ledger import Ledger, Row, now
from trainables.config import TrainingConfig
from trainables.reports import History, Outcome


class Driver:
    """One run of a sweep: trains the members of the plan that the ledger lacks.

    Args:
        plan: the members to train.
        ledger: the sweep's results so far.
        retry_failed: whether failed members are trained again.
        max_failures: number of failed members after which nothing more is handed out; None sets no limit.
        data_dir: folder of the data sets; read only if the size of a data set is not known.
    """

    def __init__(
        self,
        plan: Plan,
        ledger: Ledger,
        *,
        retry_failed: bool,
        max_failures: int | None = None,
        data_dir: Path = Path("data"),
    ):
        self.plan = plan
        self._ledger = ledger
        self.rows: dict[str, Row] = ledger.read()
        self.unfoldings = unfold(plan, ledger)
        self._by_key: dict[str, list[Member]] = defaultdict(list)
        # Includes keys that are not in the plan yet: their members may become known in this run.
        self._retry = {key for key, row in self.rows.items() if retry_failed and row.status == "failed"}
        self._settled: set[str] = set()
        """The keys of members that this run does not train, or has trained. Kept, since checking all takes long."""
        self._add(self.members())
        if not self._unsettled:
            self._unfold()  # tells whether anything is left
        self._news = True
        """Whether members have ended since the last call of `_unfold`."""
        self._running: dict[str, PlannedCohort] = {}
        self._fixed: deque[PlannedCohort] = deque()
        """Waiting cohorts that are not formed again; they come first."""
        self._waiting: dict[str, Member] = {}
        self._queue: deque[PlannedCohort] = deque()
        """The cohorts of the members in `_waiting`; formed again when `_waiting` changes."""
        self._grouped = 0
        """The length of `_queue` when it was formed."""
        self._workload = Workload(plan, data_dir)
        self._slots: int = 1
        self._pack: int | None = None
        self._listeners: list[Listener] = []
        self._max_failures = max_failures
        self.trained = 0
        """Members that ended in this run."""
        self.failures = 0
        """Members that failed in this run."""

    @property
    def todo(self) -> bool:
        """Whether anything is left to train."""
        return self._unsettled or any(u.unmade() for u in self.unfoldings.values())

    @property
    def _unsettled(self) -> bool:
        return len(self._settled) < len(self._by_key)

    @property
    def blocked(self) -> list[str]:
        """Reasons why some members cannot be made: the study that they take from has no finished member."""
        return list(dict.fromkeys(reason for u in self.unfoldings.values() for reason in u.blocked))

    def begin(self, *, slots: int, pack: int | None) -> None:
        """Forms the cohorts.

        Args:
            slots: how many cohorts can be trained at the same time.
            pack: the largest number of members in a cohort; None sets no limit.
        """
        self._slots, self._pack = slots, pack
        self._fixed.extend(self._begun())
        self._enqueue(self.members())

    def resize(self, slots: int) -> None:
        """Forms the waiting cohorts again for another number of slots, after nodes have come or gone."""
        self._slots = slots
        self._group()

    def _begun(self) -> list[PlannedCohort]:
        """The cohorts that a killed driver left in training, unchanged, so that they find their checkpoints."""
        cohorts: list[PlannedCohort] = []
        taken: set[str] = set()
        for keys in self._ledger.begun_cohorts(self._needs):
            usable = all(key in self._by_key and self._needs(key) and key not in taken for key in keys)
            if usable and 0 < len(keys) <= (self._pack or len(keys)):
                cohorts.append(PlannedCohort(tuple(self._strictest(self._by_key[key][0]) for key in keys)))
                taken |= set(keys)
        return cohorts

    def listen(self, *listeners: Listener) -> None:
        """Adds listeners."""
        self._listeners += listeners

    def members(self) -> list[Member]:
        """All members known so far, in the order of the plan."""
        return self.unfoldings.members()

    def current(self) -> dict[str, Row]:
        """The rows of the plan's members."""
        return {key: row for key, row in self.rows.items() if key in self._by_key}

    def settled(self) -> dict[str, Row]:
        """The rows of the plan's members that this run does not train again."""
        return {key: row for key, row in self.current().items() if key not in self._retry}

    def left(self) -> list[Member]:
        """The members that this run will train; other members of the study stand for those not known yet."""
        known = {member.key: member for member in self.members() if self._needs(member.key)}
        unmade: list[Member] = []
        for unfolding in self.unfoldings.values():
            unmade += unfolding.stand_ins()
        return [*known.values(), *unmade]

    # --- the schedule ------------------------------------------------------------------------------------------------

    @property
    def gave_up(self) -> bool:
        """Whether the run stops because too many members have failed."""
        return self._max_failures is not None and self.failures >= self._max_failures

    def next(self) -> PlannedCohort | None:
        if self.gave_up:
            self._fixed.clear()
            self._queue.clear()
            self._waiting.clear()
            return None
        if self._news:
            self._news = False
            new = self._unfold()
            self._enqueue(new)
            if trained_before := [member for member in new if member.key in self._settled]:
                for listener in self._listeners:
                    listener.found(trained_before, self.rows)
        if not self._fixed and not self._queue:
            return None
        if self._near_the_end():
            self._group()
        cohort = (self._fixed or self._queue).popleft()
        for member in cohort.members:
            self._waiting.pop(member.key, None)
        self._running[cohort.key] = cohort
        self._ledger.begin_cohort(cohort.key, [member.key for member in cohort.members])
        for listener in self._listeners:
            listener.started([sibling for member in cohort.members for sibling in self._by_key[member.key]])
        return cohort

    def check(self) -> None:
        self._ledger.check()
        for listener in self._listeners:
            listener.tick()

    def exhausted(self) -> bool:
        return not self._fixed and not self._queue and not self._running

    def waiting(self) -> int:
        return len(self._fixed) + len(self._queue)

    def _needs(self, key: str) -> bool:
        row = self.rows.get(key)
        if row is None or key in self._retry:
            return True
        return not all(member.settled_by(row.status) for member in self._by_key.get(key, ()))

    def _add(self, members: Iterable[Member]) -> None:
        for member in members:
            if all(member.study != other.study for other in self._by_key[member.key]):
                self._by_key[member.key].append(member)
                self._settle(member.key)

    def _settle(self, key: str) -> None:
        (self._settled.discard if self._needs(key) else self._settled.add)(key)

    def _enqueue(self, members: Sequence[Member]) -> None:
        if not members:
            return
        taken = {member.key for cohort in (*self._running.values(), *self._fixed) for member in cohort.members}
        for member in members:
            if self._needs(member.key) and member.key not in taken:
                self._waiting[member.key] = self._strictest(member)
        self._group()

    def _near_the_end(self) -> bool:
        """Whether so few cohorts wait that smaller ones are better: all slots should end at about the same time."""
        waiting, free = len(self._queue), self._slots - len(self._running)
        return waiting != free and waiting < min(self._slots, self._grouped / 2, len(self._waiting))

    def _group(self) -> None:
        """Forms cohorts of all waiting members."""
        unmade = (unfolding.stand_ins() for unfolding in self.unfoldings.values())
        self._queue = deque(
            group(
                self._waiting.values(),
                slots=self._slots,
                pack=self._pack,
                workload=self._workload,
                running=sum(self._workload.of(*cohort.members) for cohort in self._running.values()),
                unmade=sum(self._workload.of(*members) for members in unmade),
            )
        )
        self._grouped = len(self._queue)

    def _strictest(self, member: Member) -> Member:
        """A member with the same key; prefers one without early stopping."""
        return min(self._by_key[member.key], key=lambda m: m.halving is not None)

    def _unfold(self) -> list[Member]:
        """Members that have just become known: the next batch of a search, or members that take from a new winner."""
        found: list[Member] = []
        changed = True
        while changed:  # a new member may have been trained already, and other members may wait for it
            changed = False
            for unfolding in self.unfoldings.values():
                if unfolding.unmade():
                    new = unfolding.more(self.rows, self._settled)
                    self._add(new)
                    found += new
                    changed = changed or bool(new)
        return found

    # --- results -----------------------------------------------------------------------------------------------------

    def progressed(self, cohort: PlannedCohort, since: int, history: History) -> None:
        for listener in self._listeners:
            listener.progressed(cohort.members, since, history)

    def ended(self, cohort: PlannedCohort, outcomes: Sequence[Outcome]) -> None:
        self._ledger.fence()  # a worker without the lock cannot write its checkpoint, and reports this as an error
        self._running.pop(cohort.key, None)
        configs = {member.key: member.config for member in cohort.members}
        rows = [_row(outcome, configs[outcome.key]) for outcome in outcomes]
        if len(cohort.members) > 1:
            too_many = {o.key: o.fit for o in outcomes if o.reason == "out_of_memory"}
            rows = [row for row in rows if row.key not in too_many]
            self._split([member for member in cohort.members if member.key in too_many], set(too_many.values()))
        if rows:
            rows = self._ledger.append(rows)
        self._ledger.end_cohort(cohort.key)
        self._news = True
        for row in rows:
            self.rows[row.key] = row
            self._retry.discard(row.key)
            self._settle(row.key)
        self.trained += len(rows)
        self.failures += sum(row.status == "failed" for row in rows)
        members = [sibling for row in rows for sibling in self._by_key[row.key]]
        for listener in self._listeners:
            listener.ended(members, self.rows)

    def _split(self, members: Sequence[Member], fit: Set[int | None]) -> None:
        """Forms smaller cohorts of members that did not fit into memory: of the size in `fit` if known, else halves."""
        known = [number for number in fit if number is not None]
        size = min(known) if known else math.ceil(len(members) / 2)
        if members:
            self._fixed.extendleft(reversed(evenly(members, math.ceil(len(members) / size))))


def _row(outcome: Outcome, config: TrainingConfig) -> Row:
    """The ledger's row of an outcome.

    Raises:
        UserError: the storage or the data failed. Then nothing is recorded, and the next run trains these members.
    """
    detail = " ".join((outcome.detail or "").split())
    if outcome.reason == "storage":
        raise UserError(f"a checkpoint cannot be written or read: {detail}")
    if outcome.reason == "data":
        raise UserError(f"the images cannot be read {detail}")
    return Row(
        key=outcome.key,
        status=outcome.status,
        reason=outcome.reason,
        detail=outcome.detail,
        epochs=outcome.epochs,
        wall_s=outcome.wall_s,
        ended=now(),
        config=config.model_dump(mode="json"),
        metrics=outcome.metrics,
        history=outcome.history,
    )
