"""What is trained next, and together with what: members become cohorts, the most pressing first.

Two rules, both old. List scheduling by the longest path to the end (Graham 1969; upward rank in Topcuoglu et al. 2002):
a training that others wait for comes before one that nobody waits for. Guided self-scheduling (Polychronopoulos & Kuck
1987): how much a slot is given at a time is a share of what is left, so that all slots end at about the same time,
whatever their speed, and cohorts are still as large as may be, since packed members cost less.

Nothing here knows a machine. What a training costs is a number: only proportions matter.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from sweeps.planning.plan import Cohort, Member, Plan
from sweeps.planning.sizes import size_of
from trainables.cost.operations import operations
from trainables.cost.size import parameters
from trainables.data.sizes import Size

SHARES = 8
"""So many cohorts of a large shape go to each slot one after the other, rather than one, ..."""
GRAIN = 1e10
"""... as long as a step of theirs is so many operations. With less a GPU is not busy: a millisecond of 10 TFLOP/s."""


class Workload:
    """What the members of a plan cost, and what must follow them; looked up once for each shape.

    Args:
        plan: of these members.
        data_dir: where data sets lie whose size is not known without them.
        measured: the cost of members by shape, in any unit; None for the floating-point operations of their training.

    Raises:
        UserError: by its methods, where a network does not go with its images.
    """

    def __init__(self, plan: Plan, data_dir: Path, measured: Mapping[str, float] | None = None):
        self._plan, self._data_dir, self._measured = plan, data_dir, measured
        self._by_shape: dict[str, float] = {}
        self._fewest: dict[str, int] = {}
        self._after: dict[str, float] | None = None

    def of(self, *members: Member) -> float:
        """The cost of members together."""
        total = 0.0
        for member in members:
            if (found := self._by_shape.get(member.shape)) is None:
                found = self._by_shape[member.shape] = self._cost(member)
            total += found
        return total

    def _cost(self, member: Member) -> float:
        if self._measured is not None:
            return self._measured[member.shape]
        size = self._size(member)
        with member.building():
            return operations(member.config, size.image_shape).of_training(member.config, size)

    def fewest(self, member: Member) -> int:
        """How many members of this one's shape make a step of `GRAIN` operations."""
        if (found := self._fewest.get(member.shape)) is None:
            config, image_shape = member.config, self._size(member).image_shape
            if self._measured is None:
                step = operations(config, image_shape).step
            else:  # no less than if all layers were dense, which is known at once
                step = 6 * config.batch_size * parameters(config, image_shape)
            found = self._fewest[member.shape] = math.ceil(GRAIN / step)
        return found

    def _size(self, member: Member) -> Size:
        return size_of(member.config.data.name, self._data_dir)

    def after(self, study: str) -> float:
        """The cost of the longest chain of trainings of which each waits for the one before and the first for a member
        of this study: those of studies that take from it, and of a search's next batches."""
        if self._after is None:
            self._after = self._chains()
        return self._after[study]

    def rank(self, member: Member) -> float:
        """The longest way from the beginning of a member's training to the end of the sweep."""
        return self.of(member) + self.after(member.study)

    def _chains(self) -> dict[str, float]:
        waiting: dict[str, float] = defaultdict(float)
        for study in reversed(self._plan.studies):  # what takes from a study stands behind it
            longest = max(self.of(member) for member in self._plan.expected(study))
            batches = math.ceil(study.search.members / study.search.batch) if study.search else 1
            for winner in study.takes:
                waiting[winner.study] = max(waiting[winner.study], batches * longest + waiting[study.name])
            waiting[study.name] += (batches - 1) * longest
        return waiting


def group(
    members: Iterable[Member],
    *,
    slots: int,
    workload: Workload,
    pack: int | None = None,
    running: float = 0.0,
    unmade: float = 0.0,
) -> list[Cohort]:
    """Groups members into cohorts, the most pressing first.

    Args:
        members: of any shapes; equal keys are trained once.
        slots: how many cohorts can be trained at the same time.
        workload: what they cost.
        pack: the largest number of members in a cohort, if there is a limit.
        running: what cohorts cost that are in training; about half of it is still to be done.
        unmade: what members cost that are not known yet.
    """
    by_shape: dict[tuple[str, str | None], dict[str, Member]] = defaultdict(dict)
    for member in members:
        # Those that are stopped early compete with members of their own study alone.
        rivals = member.study if member.halving else None
        by_shape[member.shape, rivals][member.key] = member
    shapes = [sorted(same.values(), key=lambda m: -workload.after(m.study)) for same in by_shape.values()]
    costs = [workload.of(same[0]) for same in shapes]
    left = sum(cost * len(same) for cost, same in zip(costs, shapes, strict=True)) + running / 2
    share = left / slots
    # No schedule is shorter than this; what others wait for must be done early enough.
    end = max([(left + unmade) / slots, *(workload.rank(same[0]) for same in shapes)])
    found: list[tuple[float, Cohort]] = []
    for same, cost in zip(shapes, costs, strict=True):
        size, after = len(same), workload.after(same[0].study)
        portions = 1.0
        # A batch that competes stays together, unless it is more than can be trained at once.
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


def evenly(members: Sequence[Member], parts: int) -> list[Cohort]:
    """Cohorts whose sizes differ by at most one; neighbours stay together."""
    bounds = [len(members) * part // parts for part in range(parts + 1)]
    return [Cohort(tuple(members[a:b])) for a, b in pairwise(bounds)]
