"""python -m sweeps.ui: opens MLflow's user interface for the runs of a storage folder, on this machine only.

--optuna opens Optuna's dashboard for its studies instead.
"""

import ctypes
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from sweeps.cli import Studies, run_app, single
from sweeps.errors import OK, UserError
from sweeps.records.ledger import UnchangedLedger
from sweeps.records.storage import Storage
from sweeps.redact import redact
from sweeps.tracking.sqlite import DatabaseError, relocate
from sweeps.tracking.uri import ARTIFACTS, DATABASE, of_database, remove_stray_folder

_ASK_EVERY_S = 0.3
_PR_SET_PDEATHSIG = 1
"""From linux/prctl.h."""


def ui(
    storage: Annotated[str, typer.Option(help="Folder where sweeps were run.")] = "./runs",
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1.", min=1, max=65535)] = 5000,
    optuna: Annotated[
        bool, typer.Option("--optuna", help="Show the studies in Optuna's dashboard instead of the runs in MLflow.")
    ] = False,
    studies: Studies = None,
) -> int:
    """Starts MLflow's user interface on 127.0.0.1; Ctrl-C ends it."""
    if optuna:
        return _dashboard(storage, port, studies)
    database = Path(storage).absolute() / DATABASE
    if not database.is_file():
        raise UserError(
            f"--storage {storage!r} has no {database.name}; first run a sweep: python -m sweeps.run quickstart"
        )
    _check_port(port)
    try:
        relocate(of_database(database))
    except DatabaseError as error:
        advice = "if it is damaged, move it away; the next run of a sweep makes a new one"
        raise UserError(f"{database} cannot be used: {error}; {advice}") from None
    command = ["mlflow", "server", "--backend-store-uri", of_database(database), "--host", "127.0.0.1"]
    command += ["--port", str(port), "--workers", "1", "--artifacts-destination", str(database.parent / ARTIFACTS)]
    server = subprocess.Popen([sys.executable, "-m", *command], stdout=sys.stderr, preexec_fn=_end_with_parent)
    address = f"http://127.0.0.1:{port}"
    try:
        while not _answers(f"{address}/health"):
            if server.poll() is not None:
                raise UserError(f"MLflow's server ended with exit code {server.returncode}; its output above says why")
            time.sleep(_ASK_EVERY_S)
        remove_stray_folder(of_database(database))
        print(f"MLflow on {address} (Ctrl-C ends it)", flush=True)
        return server.wait()
    finally:
        server.terminate()
        server.wait()
        remove_stray_folder(of_database(database))


def _check_port(port: int) -> None:
    """Raises UserError if a port cannot be used."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise UserError(f"port {port} cannot be used ({error.strerror}); choose another with --port") from None


def _dashboard(storage: str, port: int, studies: Path | None) -> int:
    """Shows all studies of a folder in Optuna's dashboard. They are rebuilt from the ledgers, in memory."""
    if find_spec("optuna_dashboard") is None:
        raise UserError("--optuna needs the package optuna-dashboard; install it with: pip install optuna-dashboard")
    _check_port(port)
    from sweeps.analysis.cells import cells
    from sweeps.planning import saved
    from sweeps.report import optuna_studies  # takes seconds to import, with the others

    found = {}
    for folder in sorted(path.parent for path in Path(storage).glob(f"*/{saved.PLAN}")):
        place = Storage(storage, folder.name)
        try:
            plan = saved.last_plan(place, studies)
            ledger = UnchangedLedger(place)
            members, rows = saved.known_members(plan, ledger), ledger.read()
        except UserError as error:
            print(f"{folder.name} is left out: {redact(str(error))}", file=sys.stderr)
            continue
        found |= {f"{folder.name}/{study.name}": (study, cells(study, members, rows)) for study in plan.studies}
    if not found:
        raise UserError(f"--storage {storage!r} has no sweep; first run one: python -m sweeps.run quickstart")
    print(f"Optuna's dashboard on http://127.0.0.1:{port} (Ctrl-C ends it)", flush=True)
    optuna_studies.serve(found, port)
    return OK


def _end_with_parent() -> None:
    """Makes the kernel end this process when its parent is killed, so that no server is left behind; only on Linux."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except OSError:
        return False


if __name__ == "__main__":
    run_app(single(ui), "python -m sweeps.ui")
