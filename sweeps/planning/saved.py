"""Saves and loads the plan with which a sweep was last run."""

import dataclasses
import json
import shlex

from pydantic import TypeAdapter, ValidationError

from search_spaces import Sweep, UnknownSweep, get_sweep
from sweeps.errors import UserError
from sweeps.planning.plan import Member, Overrides, Plan
from sweeps.planning.unfold import unfold
from sweeps.records.ledger import Ledger
from sweeps.records.storage import Storage

_PLAN = "plan.json"


def find_sweep(name: str) -> Sweep:
    """The sweep with this name, or the original of a derived sweep; raises UserError, with known names, if unknown."""
    try:
        return get_sweep(name.partition("-")[0])
    except UnknownSweep as error:
        raise UserError(str(error)) from None


def save_plan(storage: Storage, overrides: Overrides) -> None:
    """Saves the options with which the sweep is run."""
    storage.write(_PLAN, json.dumps(dataclasses.asdict(overrides)).encode())


def last_plan(storage: Storage) -> Plan:
    """The plan with which the sweep was last run.

    Raises:
        UserError: the sweep has never been run in this storage, or its saved plan is damaged.
    """
    try:
        content = storage.read(_PLAN)
    except FileNotFoundError:
        derived = storage.derived()
        has = f"; what has been run there: {', '.join(derived)}" if derived else ""
        raise UserError(
            f"sweep {storage.name!r} has not been run in {storage.uri!r}{has}; start with: "
            f"python -m sweeps.run {storage.name} --storage {shlex.quote(storage.uri)}"
        ) from None
    try:
        overrides = TypeAdapter(Overrides).validate_json(content)
    except ValidationError:
        raise UserError(
            f"{storage.full_uri}/{_PLAN} is damaged; running the sweep again, with the options it had, writes it anew: "
            f"python -m sweeps.run {storage.name} --storage {shlex.quote(storage.uri)}"
        ) from None
    return Plan(find_sweep(storage.name), overrides)


def known_members(plan: Plan, ledger: Ledger) -> list[Member]:
    """The members of a plan that are known so far, in the order of the plan."""
    return unfold(plan, ledger).members()
