"""One sweep's folder: its ledger, the plan it was last run with, and the files derived from them."""

import dataclasses
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
from pydantic import TypeAdapter, ValidationError

from search_spaces import Sweep, UnknownSweep, get_sweep
from search_spaces.space import Study
from sweeps import frames
from sweeps.errors import UserError
from sweeps.ledger import Ledger, Row
from sweeps.plan import Member, Overrides, Plan
from sweeps.storage import Storage, joined
from sweeps.unfold import unfold

_PLAN, REPORT_FOLDER = "plan.json", "report"
REPORT = f"{REPORT_FOLDER}/index.html"


def find_sweep(name: str) -> Sweep:
    """The sweep of that name, or from which one of that name is derived; raises UserError, listing the known ones."""
    try:
        return get_sweep(name.partition("-")[0])
    except UnknownSweep as error:
        raise UserError(str(error)) from None


def save_plan(storage: Storage, overrides: Overrides) -> None:
    """Remembers what the sweep was run with."""
    storage.write(_PLAN, json.dumps(dataclasses.asdict(overrides)).encode())


def last_plan(storage: Storage) -> Plan:
    """The plan that the sweep was last run with.

    Raises:
        UserError: it has never been run in this storage, or the file that says how is damaged.
    """
    try:
        content = storage.read(_PLAN)
    except FileNotFoundError:
        raise UserError(
            f"sweep {storage.name!r} has not been run in {storage.uri!r}; start with: "
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


def known_members(plan: Plan, ledger: Ledger, studies: Sequence[Study] | None = None) -> list[Member]:
    """The members of a plan that are known so far, in its order."""
    unfoldings = unfold(plan, ledger)
    return [member for study in studies or plan.studies for member in unfoldings[study.name].members()]


def write_outputs(
    storage: Storage,
    plan: Plan,
    members: Sequence[Member],
    rows: Mapping[str, Row],
    run_ids: Mapping[tuple[str, str], str],
    data_dir: Path = Path("data"),
) -> str:
    """Writes results.parquet, history.parquet and the report; returns the report's place.

    data_dir: where the images lie of which the report shows some.
    """
    frames.write(storage, frames.RESULTS, frames.results_table(members, rows, run_ids))
    frames.write(storage, frames.HISTORY, frames.history_table(members, rows))
    return write_report(storage, plan, members, rows, data_dir)


def write_report(
    storage: Storage, plan: Plan, members: Sequence[Member], rows: Mapping[str, Row], data_dir: Path
) -> str:
    """Writes the report with its files, deletes those of an earlier one, and returns the report's place."""
    from sweeps.report.html import report  # what draws takes a second to import
    from sweeps.report.reconstructions import Sources

    found = report(plan, members, rows, sources=Sources(storage, data_dir))
    files = {f"{REPORT_FOLDER}/{path}": content for path, content in found.items()}
    for path, content in files.items():
        storage.write(path, content)
    for path in storage.list(REPORT_FOLDER, "", recursive=True):
        if path not in files:
            storage.delete(path)
    return joined(storage.full_uri, REPORT)


def known_run_ids(storage: Storage) -> dict[tuple[str, str], str]:
    """MLflow's run ids by study and key, as far as the results that the last run of the sweep wrote can be read."""
    try:
        table = frames.read(storage, frames.RESULTS)
        known = table[table["mlflow_run_id"].notna()]
    except (FileNotFoundError, pa.ArrowException, ValueError, KeyError):
        return {}
    return {
        (study, key): run for study, key, run in zip(known["study"], known["key"], known["mlflow_run_id"], strict=True)
    }
