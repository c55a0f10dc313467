"""What the commands print on narrow terminals is whole: no word of the wide output is cut or missing."""

import re

import pytest
from rich.console import Console
from scripted import row

from sweeps.planning import saved
from sweeps.planning.plan import Overrides, Plan
from sweeps.records.ledger import Ledger
from sweeps.records.storage import Storage
from sweeps.run import run
from sweeps.status import status

COMMANDS = {
    "list": (run, ("--list",)),
    "sizes": (run, ("--list", "--plan")),
    "plan": (run, ("paper_grid", "--plan")),
    "plan of a search": (run, ("quickstart", "--search", "tpe", "--plan", "--keep", "best")),
    "status": (status, ("quickstart",)),
}


@pytest.mark.parametrize("width", [60, 80])
@pytest.mark.parametrize("name", COMMANDS)
def test_on_a_narrow_terminal_nothing_is_cut_or_empty(command, tmp_path, monkeypatch, name, width):
    storage = Storage(str(tmp_path / "runs"), "quickstart")
    saved.save_plan(storage, Overrides())
    members = Plan(saved.find_sweep("quickstart")).members
    failed = row(members["temperatures"][0], status="failed", reason="diverged", metrics={})
    Ledger(storage).append([*(row(member) for member in members["estimators"][:7]), failed])

    function, arguments = COMMANDS[name]
    code, wide, _ = command(function, *arguments)
    assert code == 0
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr(Console, "is_terminal", property(lambda console: True))
    code, narrow, _ = command(function, *arguments)
    assert code == 0
    narrow = re.sub(r"\x1b\[[\d;]*m", "", narrow)  # bold headings

    shown = " ".join(narrow.split())
    assert "…" not in shown
    assert not re.search(r"[:;,] *[;,]|\( *[;,)]", shown), "an empty place"
    assert len(narrow.splitlines()) > 3
    rows = [re.split(r"\s{2,}", line.strip()) for line in wide.splitlines()]
    rows = rows[0 if name == "status" else 1 :]  # without the headings
    assert [cell for cells in rows for cell in cells if cell not in shown] == []
    if name != "status":
        # Sentences with commands may be longer: a terminal breaks them, and copying gives the whole command.
        lines = [line for line in narrow.splitlines() if "python -m" not in line and "--keep" not in line]
        assert max(map(len, lines)) <= width
