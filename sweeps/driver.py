"""The driver: hands out what the ledger lacks, and records what comes back.

It implements `sweeps.execute.Work` and knows nothing of Ray. All of it runs on one thread.
"""

from collections import defaultdict, deque
from collections.abc import Iterable
from typing import Any

from sweeps.ledger import Ledger, Row, now
from sweeps.plan import Cohort, Member, Plan, group
from sweeps.progress import Progress
from sweeps.search import StudySearch
from sweeps.tracking import Tracker


class Driver:
    """One run of a sweep: plan minus ledger.

    Args:
        retry_failed: whether members whose row says failed are trained again.
    """

    def __init__(self, plan: Plan, ledger: Ledger, *, retry_failed: bool):
        self.plan = plan
        self._ledger = ledger
        self.rows: dict[str, Row] = ledger.read()
        self._searches = {study.name: StudySearch(plan, study, ledger) for study in plan.studies if study.search}
        self._by_key: dict[str, list[Member]] = defaultdict(list)
        self._add(self.members())
        failed = {key for key, row in self.rows.items() if row.status == "failed"}
        self._retry = failed & self._by_key.keys() if retry_failed else set()
        self._running: dict[str, Cohort] = {}
        self._queue: deque[Cohort] = deque()
        self._slots: int = 1
        self._pack: int | None = None
        self._listeners: list[Tracker | Progress] = []
        self.trained = 0
        """Members that ended in this run."""

    @property
    def todo(self) -> bool:
        """Whether anything is left to train."""
        suggest = any(search.suggestions_left() for search in self._searches.values())
        return suggest or any(self._needs(key) for key in self._by_key)

    def begin(self, *, slots: int, pack: int | None) -> None:
        """Forms the cohorts. slots: how many can be trained at the same time; pack: the largest, or None."""
        self._slots, self._pack = slots, pack
        begun = self._begun()
        self._queue.extend(begun)
        resumed = {member.key for cohort in begun for member in cohort.members}
        self._enqueue(member for member in self.members() if member.key not in resumed)

    def _begun(self) -> list[Cohort]:
        """The cohorts that a killed driver left in training, as they were: only so do they find their checkpoints."""
        cohorts: list[Cohort] = []
        taken: set[str] = set()
        for keys in self._ledger.begun_cohorts():
            usable = all(key in self._by_key and self._needs(key) and key not in taken for key in keys)
            if usable and 0 < len(keys) <= (self._pack or len(keys)):
                cohorts.append(Cohort(tuple(self._by_key[key][0] for key in keys)))
                taken |= set(keys)
        return cohorts

    def listen(self, *listeners: Tracker | Progress) -> None:
        """Adds those that want to hear of progress."""
        self._listeners += listeners

    def members(self) -> list[Member]:
        """All members known so far, in the order of the plan; those of searches as far as they were suggested."""
        return [
            member
            for study in self.plan.studies
            for member in (self._searches[study.name].members() if study.search else self.plan.members[study.name])
        ]

    def current(self) -> dict[str, Row]:
        """The rows of the plan's members."""
        return {key: row for key, row in self.rows.items() if key in self._by_key}

    def settled(self) -> dict[str, Row]:
        """The rows of the plan's members that this run does not train again."""
        return {key: row for key, row in self.current().items() if key not in self._retry}

    # --- the schedule ------------------------------------------------------------------------------------------------

    def next(self) -> Cohort | None:
        self._search_on()
        if not self._queue:
            return None
        cohort = self._queue.popleft()
        self._running[cohort.key] = cohort
        self._ledger.begin_cohort(cohort.key, [member.key for member in cohort.members])
        for listener in self._listeners:
            listener.started(self._siblings(cohort))
        return cohort

    def exhausted(self) -> bool:
        return not self._queue and not self._running

    def _needs(self, key: str) -> bool:
        return key not in self.rows or key in self._retry

    def _add(self, members: Iterable[Member]) -> None:
        for member in members:
            if all(member.study != other.study for other in self._by_key[member.key]):
                self._by_key[member.key].append(member)

    def _enqueue(self, members: Iterable[Member]) -> None:
        self._queue.extend(group((m for m in members if self._needs(m.key)), slots=self._slots, pack=self._pack))

    def _search_on(self) -> None:
        """Asks every search whose members have all ended for its next batch."""
        for search in self._searches.values():
            while not any(self._needs(member.key) for member in search.members()):
                batch = search.next_batch(self.rows)
                if not batch:
                    break
                self._add(batch)
                self._enqueue(batch)

    # --- what comes back ---------------------------------------------------------------------------------------------

    def _siblings(self, cohort: Cohort) -> list[Member]:
        """The cohort's members in every study that has them."""
        return [sibling for member in cohort.members for sibling in self._by_key[member.key]]

    def progressed(self, cohort: Cohort, since: int, history: dict[str, Any]) -> None:
        for listener in self._listeners:
            listener.progressed(cohort.members, since, history)

    def ended(self, cohort: Cohort, results: list[dict[str, Any]]) -> None:
        configs = {member.key: member.config for member in cohort.members}
        self._record(
            cohort,
            [Row(**result, ended=now(), config=configs[result["key"]].model_dump(mode="json")) for result in results],
        )

    def failed(self, cohort: Cohort, reason: str, detail: str) -> None:
        self._record(
            cohort,
            [
                Row(
                    key=member.key,
                    status="failed",
                    reason=reason,
                    detail=detail,
                    epochs=0,
                    wall_s=0.0,
                    ended=now(),
                    config=member.config.model_dump(mode="json"),
                    metrics={},
                    history={},
                )
                for member in cohort.members
            ],
        )

    def _record(self, cohort: Cohort, rows: list[Row]) -> None:
        self._ledger.append(rows)
        for row in rows:
            self.rows[row.key] = row
            self._retry.discard(row.key)
        self.trained += len(rows)
        self._running.pop(cohort.key, None)
        self._ledger.end_cohort(cohort.key)
        members = self._siblings(cohort)
        for listener in self._listeners:
            listener.ended(members, self.rows)
