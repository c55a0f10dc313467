"""Saves and loads the plan with which a sweep was last run."""

import dataclasses
import json
import re
import shlex
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from search_spaces import Sweep, UnknownSweep, get_sweep
from search_spaces.derived import command_words
from sweeps.errors import UserError
from sweeps.planning import sessions
from sweeps.planning.plan import Member, Overrides, Plan
from sweeps.planning.unfold import unfold
from sweeps.records.ledger import Ledger
from sweeps.records.storage import Storage

PLAN = "plan.json"


def find_sweep(name: str, studies: Path | None = None) -> Sweep:
    """The sweep with this name, or the original of a derived sweep.

    Args:
        name: of the sweep.
        studies: a folder with studies of the user's own (`--studies`).

    Raises:
        UserError: the sweep is not known, or the folder cannot be read.
    """
    try:
        return get_sweep(command_words(name)[0], studies)
    except (UnknownSweep, OSError) as error:
        raise UserError(str(error)) from None


def save_plan(storage: Storage, overrides: Overrides) -> None:
    """Saves the options with which the sweep is run."""
    storage.write(PLAN, json.dumps(dataclasses.asdict(overrides)).encode())


def decoded(content: bytes) -> Overrides:
    """The options in a saved plan; raises ValidationError if it is damaged."""
    return TypeAdapter(Overrides).validate_json(content)


def last_plan(storage: Storage, studies: Path | None = None) -> Plan:
    """The plan with which the sweep was last run.

    Args:
        storage: of the sweep.
        studies: a folder with studies of the user's own (`--studies`).

    Raises:
        UserError: the sweep is not known, was never run in this storage, or its saved plan is damaged.
    """
    try:
        sweep = find_sweep(storage.name, studies)
    except UserError as error:
        raise UserError(f"{error}{_how_it_ran(storage)}") from None
    options = command_words(storage.name)[1:]
    again = shlex.join(["python", "-m", "sweeps.run", *sweep.words, *options, "--storage", storage.uri])
    try:
        content = storage.read(PLAN)
    except FileNotFoundError:
        derived = storage.derived()
        others = f"; derived sweeps there: {', '.join(derived)}" if derived else ""
        raise UserError(
            f"sweep {storage.name!r} has not been run in {storage.uri!r}{others}; run it with: {again}"
        ) from None
    try:
        overrides = decoded(content)
    except ValidationError:
        raise UserError(
            f"{storage.full_uri}/{PLAN} is damaged; to restore it, run the sweep again with the same options: {again}"
        ) from None
    return Plan(sweep, overrides)


def _how_it_ran(storage: Storage) -> str:
    """The last command of a sweep that is not known here: its file may be in a folder that the command names.

    It is only told. Files that a storage names are not imported, since storages are not trusted.
    """
    if not re.fullmatch(r"[a-z0-9_-]+", storage.name):
        return ""
    last = sessions.read(storage)[-1:]
    return f"; it was last run with: {last[0].command.text(storage)}" if last and last[0].command else ""


def known_members(plan: Plan, ledger: Ledger) -> list[Member]:
    """The members of a plan that are known so far, in the order of the plan."""
    return unfold(plan, ledger).members()
