"""What a plan still takes: cohorts, epochs, hours by measured rates, bytes. Nothing is started or written."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from search_spaces.space import Study
from sweeps import space
from sweeps.ledger import Ledger
from sweeps.plan import Member, Plan, group
from sweeps.rates import Rates
from sweeps.storage import Storage
from sweeps.unfold import unfold


@dataclass(frozen=True)
class Estimate:
    """Of a study, or of a whole sweep, in which a member that several studies share counts once."""

    name: str
    source: str
    data: str
    members: int
    done: int
    cohorts: int
    epochs: int
    """Left to train, summed over members."""
    hours: float | None
    """On all slots of the device; None where some member's kind was never measured."""
    bytes: int


def slots_of(device: str) -> int:
    """How many cohorts this machine trains at the same time: one a GPU, or one a core."""
    return max(1, torch.cuda.device_count()) if device == "cuda" else len(os.sched_getaffinity(0))


def estimate(
    plan: Plan, storage: Storage, *, rates: Rates | None, slots: int, pack: int | None, data_dir: Path
) -> list[Estimate]:
    """The estimate of every study, and at the end of the sweep."""
    ledger = Ledger(storage)
    rows = ledger.read() if storage.exists() else {}
    left: dict[str, Member] = {}
    unknown: list[Member] = []
    found = []
    for name, unfolding in unfold(plan, ledger).items():
        known = unfolding.members()
        expected = plan.expected(unfolding.study)[: plan.size(unfolding.study) - len(known)]
        own = [member for member in known if member.key not in rows or not member.settled_by(rows[member.key].status)]
        left |= {member.key: member for member in own}
        if unfolding.study.search:
            unknown += expected  # each will be another one
        else:
            left |= {member.key: member for member in expected}
        found.append(
            _of(name, unfolding.study, plan.size(unfolding.study), [*own, *expected], rates, slots, pack, data_dir)
        )
    total = _of("in all", None, plan.total(), [*left.values(), *unknown], rates, slots, pack, data_dir)
    return [*found, total]


def _of(
    name: str,
    study: Study | None,
    members: int,
    left: Sequence[Member],
    rates: Rates | None,
    slots: int,
    pack: int | None,
    data_dir: Path,
) -> Estimate:
    # Members of one shape take equally long.
    of_shape = {member.shape: member.config for member in left}
    by_shape = {shape: rates.seconds(config, data_dir) if rates else None for shape, config in of_shape.items()}
    seconds = [by_shape[member.shape] for member in left]
    known = [value for value in seconds if value is not None]
    return Estimate(
        name=name,
        source=study.source if study else "",
        data=", ".join(sorted({member.config.data.name for member in left})) if study else "",
        members=members,
        done=members - len(left),
        cohorts=len(group(left, slots=slots, pack=pack)) if left else 0,
        epochs=sum(member.config.epochs for member in left),
        hours=sum(known) / 3600 / slots if len(known) == len(left) else None,
        bytes=space.needed_bytes(left, data_dir) if left else 0,
    )
