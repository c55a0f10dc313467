"""Estimates the work left of a plan: cohorts, epochs, hours by measured rates, bytes. Starts and writes nothing."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from search_spaces.space import Study
from sweeps.planning import disk_space
from sweeps.planning.known_rates import Rates
from sweeps.planning.plan import Member, Plan
from sweeps.planning.schedule import Workload, group
from sweeps.planning.unfold import unfold
from sweeps.records.ledger import Ledger
from sweeps.records.storage import Storage


@dataclass(frozen=True)
class Estimate:
    """The work left of a study or of a whole sweep. A sweep counts a member that several studies share once."""

    name: str
    source: str
    data: str
    members: int
    done: int
    cohorts: int
    epochs: int
    """Epochs left to train, summed over members."""
    hours: float | None
    """Hours with all slots of the device busy; None if the kind of some member was never measured."""
    bytes: int
    """Upper estimate of the storage that the members left to train take."""


def slots_of(device: str) -> int:
    """How many cohorts this machine trains at the same time: one for each GPU, or one for each core."""
    return max(1, torch.cuda.device_count()) if device == "cuda" else len(os.sched_getaffinity(0))


def estimate(
    plan: Plan, storage: Storage, *, rates: Rates | None, slots: int, pack: int | None, data_dir: Path
) -> list[Estimate]:
    """One estimate for each study; the last one is of the whole sweep.

    Args:
        plan: the plan.
        storage: the storage with the ledger of members that have ended.
        rates: measured rates; None leaves the hours unknown.
        slots: how many cohorts are trained at the same time.
        pack: the largest number of members in a cohort; None sets no limit.
        data_dir: folder of the data sets.

    Raises:
        UserError: a network does not fit its images, or a user's own images cannot be used.
    """
    ledger = Ledger(storage)
    rows = ledger.read() if storage.exists() else {}
    left: dict[str, Member] = {}
    unknown: list[Member] = []
    studies: list[tuple[Study, list[Member]]] = []
    unfoldings = unfold(plan, ledger)
    for unfolding in unfoldings.values():
        known = unfolding.members()
        expected = plan.expected(unfolding.study)[: unfolding.size - len(known)]
        own = [member for member in known if member.key not in rows or not member.settled_by(rows[member.key].status)]
        left |= {member.key: member for member in own}
        if unfolding.study.search:
            unknown += expected  # kept as a list: the stand-ins may repeat, the suggestions will differ
        else:
            left |= {member.key: member for member in expected}
        studies.append((unfolding.study, [*own, *expected]))
    everything = [*left.values(), *unknown]
    # Members of one shape take equally long.
    planned = (member for study in plan.studies for member in plan.expected(study))
    shapes = {member.shape: member.config for member in (*planned, *everything)}
    seconds = {shape: rates.seconds(config, data_dir) if rates else None for shape, config in shapes.items()}
    measured = {shape: value for shape, value in seconds.items() if value is not None}
    # Operations are counted only if some shape was not measured, since this takes a while.
    workload = Workload(plan, data_dir, measured if len(measured) == len(seconds) else None)

    def of(name: str, study: Study | None, members: int, left: Sequence[Member]) -> Estimate:
        took = [measured[member.shape] for member in left if member.shape in measured]
        return Estimate(
            name=name,
            source=study.source if study else "",
            data=", ".join(sorted({member.config.data.name for member in left})) if study else "",
            members=members,
            done=members - len(left),
            cohorts=len(group(left, slots=slots, pack=pack, workload=workload)),
            epochs=sum(member.config.epochs for member in left),
            hours=sum(took) / 3600 / slots if len(took) == len(left) else None,
            bytes=disk_space.needed_bytes(left, data_dir) if left else 0,
        )

    found = [of(study.name, study, unfoldings.size(study), own) for study, own in studies]
    return [*found, of("in all", None, unfoldings.total(), everything)]
