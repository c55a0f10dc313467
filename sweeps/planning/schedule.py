"""Schedules members: groups them into cohorts, and puts the most urgent cohort first.

Two known rules. List scheduling by the longest path to the end (Graham 1969; upward rank in Topcuoglu et al. 2002): a
training that others wait for comes first. Guided self-scheduling (Polychronopoulos & Kuck 1987): the size of a cohort
is a share of the work left, so that all slots end at about the same time, whatever their speed. Cohorts are as large as
this allows, since packed members cost less.

The cost of a training is a number without a unit; only ratios matter. The schedule knows nothing of the machine.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from sweeps.planning.plan import Member, Plan, PlannedCohort
from sweeps.planning.sizes import size_of
from trainables.cost.operations import operations
from trainables.cost.size import parameters
from trainables.data.sizes import Size

SHARES = 8
"""The largest number of cohorts into which a slot's share of a shape is split, so that slots end together."""
GRAIN = 1e10
"""Floating-point operations of a training step below which shares are not split: 1 ms at 10 TFLOP/s; less does not
keep a GPU busy."""


class Workload:
    """The cost of members of a plan, and of the trainings that must follow them. Computed once for each kind of work.

    Args:
        plan: the plan of the members.
        data_dir: folder of the data sets; read only if the size of a data set is not known.
        measured: the cost of members by their work, in any unit; None for the floating-point operations of a training.

    Raises:
        UserError: raised by its methods if a network does not fit its images, or a user's own images cannot be used.
    """

    def __init__(self, plan: Plan, data_dir: Path, measured: Mapping[str, float] | None = None):
        self._plan, self._data_dir, self._measured = plan, data_dir, measured
        self._by_work: dict[str, float] = {}
        self._fewest: dict[str, int] = {}
        self._after: dict[str, float] | None = None

    def of(self, *members: Member) -> float:
        """The total cost of members."""
        total = 0.0
        for member in members:
            if (found := self._by_work.get(member.work)) is None:
                found = self._by_work[member.work] = self._cost(member)
            total += found
        return total

    def mean(self, members: Sequence[Member]) -> float:
        """The mean cost of members of one shape. They differ only if they have guides that are over at other epochs."""
        return self.of(members[0]) if members[0].config.guide is None else self.of(*members) / len(members)

    def _cost(self, member: Member) -> float:
        if self._measured is not None:
            return self._measured[member.work]
        size = self._size(member)
        with member.building():
            return operations(member.config, size.image_shape).of_training(member.config, size)

    def fewest(self, member: Member) -> int:
        """The least number of members of this shape whose step takes `GRAIN` operations."""
        if (found := self._fewest.get(member.shape)) is None:
            config, image_shape = member.config, self._size(member).image_shape
            if self._measured is None:
                step = operations(config, image_shape).step
            else:  # a lower bound, exact for dense layers, which is quick to compute
                step = 6 * config.batch_size * parameters(config, image_shape)
            found = self._fewest[member.shape] = math.ceil(GRAIN / step)
        return found

    def _size(self, member: Member) -> Size:
        return size_of(member.config.data.name, self._data_dir)

    def after(self, study: str) -> float:
        """The cost of the longest chain of trainings that must wait for the members of this study.

        The chain has members of studies that take from this study, and the later batches of a search.
        """
        if self._after is None:
            self._after = self._chains()
        return self._after[study]

    def rank(self, member: Member) -> float:
        """The cost of the longest path from the start of a member's training to the end of the sweep."""
        return self.of(member) + self.after(member.study)

    def _chains(self) -> dict[str, float]:
        waiting: dict[str, float] = defaultdict(float)
        for study in reversed(self._plan.studies):  # a study takes only from studies before it
            longest = max(self.of(member) for member in self._plan.expected(study))
            batches = math.ceil(study.search.members / study.search.batch) if study.search else 1
            for winner in study.takes:
                waiting[winner.study] = max(waiting[winner.study], batches * longest + waiting[study.name])
            waiting[study.name] += (batches - 1) * longest
            if self._plan.confirming_seeds:
                waiting[study.name] = max(waiting[study.name], batches * longest)
        return waiting


def group(
    members: Iterable[Member],
    *,
    slots: int,
    workload: Workload,
    pack: int | None = None,
    running: float = 0.0,
    unmade: float = 0.0,
) -> list[PlannedCohort]:
    """Groups members into cohorts, the most urgent first.

    Args:
        members: members of any shapes; members with equal keys are trained once.
        slots: how many cohorts can be trained at the same time.
        workload: the cost of members.
        pack: the largest number of members in a cohort; None sets no limit.
        running: cost of the cohorts in training; half of it is assumed to be left.
        unmade: cost of the members that are not known yet.
    """
    by_shape: dict[tuple[str, str | None], dict[str, Member]] = defaultdict(dict)
    for member in members:
        # Members with early stopping compete only with members of their own study.
        rivals = member.study if member.halving else None
        by_shape[member.shape, rivals][member.key] = member
    shapes = [sorted(same.values(), key=lambda m: -workload.after(m.study)) for same in by_shape.values()]
    costs = [workload.mean(same) for same in shapes]
    left = sum(cost * len(same) for cost, same in zip(costs, shapes, strict=True)) + running / 2
    share = left / slots
    # A lower bound of the time to the end. Members that others wait for must be done early enough for it.
    end = max([(left + unmade) / slots, *(workload.rank(same[0]) for same in shapes)])
    found: list[tuple[float, PlannedCohort]] = []
    for same, cost in zip(shapes, costs, strict=True):
        size, after = len(same), workload.after(same[0].study)
        portions = 1.0
        # A batch with early stopping stays together, unless it is larger than `pack`.
        if cost and not same[0].halving:
            portions = size * cost / share
            portions = max(portions, min(SHARES * portions, size / workload.fewest(same[0])))
            if after:
                in_time = max(1, int((end - after) / cost + 1e-9))
                portions = max(portions, min(slots, size / in_time))
        parts = min(size, math.ceil(max(portions, size / (pack or size)) - 1e-9))
        cohorts = evenly(same, parts)
        found += [(len(own.members) * cost + workload.after(own.members[0].study), own) for own in cohorts]
    return [cohort for _, cohort in sorted(found, key=lambda each: -each[0])]


def evenly(members: Sequence[Member], parts: int) -> list[PlannedCohort]:
    """Splits members into `parts` cohorts of nearly equal size (they differ by at most one), in the same order."""
    bounds = [len(members) * part // parts for part in range(parts + 1)]
    return [PlannedCohort(tuple(members[a:b])) for a, b in pairwise(bounds)]
