"""Estimates the work left of a plan: cohorts, epochs, hours by measured rates, bytes. Starts and writes nothing."""

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from search_spaces.space import Study
from sweeps.planning import disk_space
from sweeps.planning.known_rates import Rates
from sweeps.planning.plan import Member, Plan
from sweeps.planning.schedule import Workload, group
from sweeps.planning.unfold import unfold
from sweeps.records.ledger import UnchangedLedger
from sweeps.records.storage import Storage


@dataclass(frozen=True)
class Estimate:
    """The work left of a study or of a whole sweep. A sweep counts a member that several studies share once."""

    name: str
    source: str
    data: str
    members: int
    done: int
    failed: int
    """Members that failed and are not trained again."""
    cohorts: int
    """A cohort with members of several studies counts for one of them, so that the cohorts of all studies add up."""
    epochs: int
    """Epochs left to train, summed over members."""
    hours: float | None
    """Hours with all slots of the device busy, without unmeasured members; None if no member was measured."""
    unmeasured: int
    """Members left to train of a kind that was never measured."""
    bytes: int
    """Upper estimate of the storage that the members left to train need until the run ends."""
    weights_bytes: int
    """The part of `bytes` that weights of ended members take; `--keep best` and `--keep none` delete it at the end."""


@dataclass(frozen=True)
class SweepSize:
    """The size of a whole sweep. Hours and unmeasured as in `Estimate`."""

    studies: int
    members: int
    hours: float | None
    unmeasured: int


def size_of_sweep(plan: Plan, *, rates: Rates | None, slots: int, data_dir: Path) -> SweepSize:
    """The size of a whole sweep; faster than `estimate`, since it reads no ledger."""
    grids = {m.key: m for study in plan.studies if not study.search for m in plan.expected(study)}
    searched = [m for study in plan.studies if study.search for m in plan.expected(study)]
    members = [*grids.values(), *searched]
    measured = _measured(members, rates, data_dir)
    return SweepSize(len(plan.studies), len(members), *_hours(members, measured, slots))


def _measured(members: Iterable[Member], rates: Rates | None, data_dir: Path) -> dict[str, float]:
    """The seconds of a training by the work of its member, for work that was measured."""
    seconds: dict[str, float | None] = {}
    for member in members:
        if member.work not in seconds:
            with member.building():
                seconds[member.work] = rates.seconds(member.config, data_dir) if rates else None
    return {work: value for work, value in seconds.items() if value is not None}


def _hours(members: Sequence[Member], measured: Mapping[str, float], slots: int) -> tuple[float | None, int]:
    """The hours of all measured members, and how many others there are."""
    took = [measured[member.work] for member in members if member.work in measured]
    return (sum(took) / 3600 / slots if took or not members else None), len(members) - len(took)


def slots_of(device: str) -> int:
    """How many cohorts this machine trains at the same time: one for each GPU, or one for each core."""
    return max(1, torch.cuda.device_count()) if device == "cuda" else len(os.sched_getaffinity(0))


def estimate(
    plan: Plan,
    storage: Storage,
    *,
    rates: Rates | None,
    slots: int,
    pack: int | None,
    data_dir: Path,
    retry_failed: bool = False,
) -> list[Estimate]:
    """One estimate for each study; the last one is of the whole sweep.

    Args:
        plan: the plan.
        storage: the storage with the ledger of members that have ended.
        rates: measured rates; None leaves the hours unknown.
        slots: how many cohorts are trained at the same time.
        pack: the largest number of members in a cohort; None sets no limit.
        data_dir: folder of the data sets.
        retry_failed: whether failed members are trained again.

    Raises:
        UserError: a network does not fit its images, or a user's own images cannot be used.
    """
    ledger = UnchangedLedger(storage)
    rows = ledger.read() if storage.exists() else {}
    failed = {key for key, row in rows.items() if row.status == "failed" and not retry_failed}

    def ends(member: Member) -> bool:
        row = rows.get(member.key)
        return row is not None and member.settled_by(row.status) and (row.status != "failed" or not retry_failed)

    left: dict[str, Member] = {}
    unknown: list[Member] = []
    studies: list[tuple[Study, list[Member], set[str]]] = []
    unfoldings = unfold(plan, ledger)
    for unfolding in unfoldings.values():
        known = unfolding.members()
        expected = plan.expected(unfolding.study)[plan.size(unfolding.study) - (unfolding.size - len(known)) :]
        own = [member for member in known if not ends(member)]
        left |= {member.key: member for member in own}
        if unfolding.study.search:
            unknown += expected  # kept as a list: the stand-ins may repeat, the suggestions will differ
        else:
            left |= {member.key: member for member in expected}
        studies.append((unfolding.study, [*own, *expected], failed & {member.key for member in known}))
    everything = [*left.values(), *unknown]
    planned = (member for study in plan.studies for member in plan.expected(study))
    work = {member.work: member for member in (*planned, *everything)}
    measured = _measured(work.values(), rates, data_dir)
    # To count operations takes a while, and is needed only where something was not measured.
    workload = Workload(plan, data_dir, measured if len(measured) == len(work) else None)
    cohorts = Counter(each.members[0].study for each in group(everything, slots=slots, pack=pack, workload=workload))

    def of(name: str, study: Study | None, members: int, left: Sequence[Member], failed: int) -> Estimate:
        hours, unmeasured = _hours(left, measured, slots)
        return Estimate(
            name=name,
            source=study.source if study else "",
            data=", ".join(sorted({member.config.data.name for member in left})) if study else "",
            members=members,
            done=members - len(left) - failed,
            failed=failed,
            cohorts=cohorts[name] if study else cohorts.total(),
            epochs=sum(member.config.epochs for member in left),
            hours=hours,
            unmeasured=unmeasured,
            bytes=disk_space.needed_bytes(left, data_dir) if left else 0,
            weights_bytes=disk_space.weights_bytes(left, data_dir),
        )

    found = [of(study.name, study, unfoldings.size(study), own, len(keys)) for study, own, keys in studies]
    all_failed: set[str] = set()
    for _, _, keys in studies:
        all_failed |= keys
    return [*found, of("total", None, unfoldings.total(), everything, len(all_failed))]
