"""A small sweep, and made-up results of its members."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from search_spaces.space import Axis, LogUniform, Search, Study, Sweep
from sweeps.driver.launch import Options
from sweeps.planning.command import called_here
from sweeps.planning.plan import Member
from sweeps.records.ledger import Row, now
from trainables.reports import Outcome

BASE = {
    "latent": {"family": "gaussian", "size": 4},
    "encoder": {"name": "mlp", "hidden": (8,)},
    "decoder": {"name": "linear"},
    "likelihood": {"name": "gaussian_fixed"},
    "estimator": {"name": "silent"},
    "optim": {"name": "adam"},
    "epochs": 2,
    "batch_size": 500,
}
GRID = Study(
    name="grid",
    title="A grid",
    source="nowhere",
    base=BASE,
    grid=(Axis("optim.lr", (1e-3, 1e-2)), Axis("likelihood.variance", (0.01, 0.1))),
    seeds=(0, 1),
    compare=("optim.lr",),
)
SEARCH = Study(
    name="searched",
    title="A search",
    source="nowhere",
    base=BASE,
    search=Search(space=(LogUniform("optim.lr", 1e-4, 1e-1),), members=7, batch=3),
)
SMALL = Sweep("small", "A small sweep", (GRID, SEARCH))


def quality(member: Member) -> float:
    """A made-up metric with its best learning rate at 1e-2."""
    return abs(math.log10(member.config.optim.lr) + 2) + 0.01 * member.config.seed


def result(member: Member, **changes: Any) -> Outcome:
    """The outcome that a worker would report for a member."""
    return Outcome(**(_parts(member) | changes))


def row(member: Member, **changes: Any) -> Row:
    """The ledger's row of this outcome."""
    return Row(**(_parts(member) | {"ended": now(), "config": member.config.model_dump(mode="json")} | changes))


def _parts(member: Member) -> dict[str, Any]:
    value = quality(member)
    return {
        "key": member.key,
        "status": "finished",
        "reason": None,
        "epochs": 2,
        "wall_s": 0.5,
        "metrics": {"bits_per_dim": value, "elbo": -value},
        "history": {"bits_per_dim": [value + 1, value], "elbo": [-value - 1, -value]},
    }


def launch_options(**changes: Any) -> Options:
    """The options of `sweeps.run small`, on a CPU of this machine."""
    options = Options(
        command=called_here(("small",)),
        retry_failed=False,
        max_failures=None,
        max_hours=None,
        tracking_uri="",
        data_dir=Path("data"),
        download=False,
        device="cpu",
        pack=None,
        workers=0,
        per_gpu=1,
        max_concurrent=None,
        address=None,
    )
    return replace(options, **changes)
