"""python -m sweeps.doctor: checks whether this machine (or a cluster) can run sweeps; prints one line a finding.

The checks leave no files behind. Ray is started only on request, because this takes seconds.
"""

import importlib.metadata
import logging
import platform
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import psutil
import typer
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from search_spaces.catalogue import known_sweeps
from sweeps.cli import Studies, check_device, run_app, single
from sweeps.errors import INTERNAL, OK, UserError
from sweeps.findings import PROJECT, Finding, ok, problem, safely
from sweeps.records.storage import Storage
from sweeps.tracking.sqlite import DatabaseError, count_runs
from sweeps.tracking.uri import database, of_database

GIB = 2**30
LOW_MEMORY, LOW_DISK = 2 * GIB, 2 * GIB
"""Free bytes that a run needs. Runs with less are known to fail: a torch worker takes half a GiB, checkpoints grow."""


# --- the installation ------------------------------------------------------------------------------------------------


def python_and_packages() -> Iterator[Finding]:
    """Compares Python and the installed packages with the requirements in the project's metadata."""
    metadata = importlib.metadata.metadata(PROJECT)
    version, wanted = platform.python_version(), metadata["Requires-Python"]
    if SpecifierSet(wanted).contains(version):
        yield ok("python", version)
    else:
        yield problem(
            "python", f"{version} is installed, {wanted} is needed", "make a virtual environment with a newer Python"
        )
    required = [Requirement(text) for text in importlib.metadata.requires(PROJECT) or ()]
    required = [r for r in required if r.marker is None or r.marker.evaluate({"extra": ""})]
    wrong = [text for requirement in required if (text := _unmet(requirement))]
    if wrong:
        yield problem("packages", ", ".join(wrong), "pip install --constraint constraints.txt --editable .")
    else:
        yield ok("packages", f"all {len(required)} are installed as required")


def environment() -> Iterator[Finding]:
    """Compares the requirements of all installed packages with each other, by `pip check`."""
    done = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True, check=False)
    if done.returncode == 0:
        yield ok("environment", "no installed package lacks what it requires")
        return
    said = [line for line in (done.stdout or done.stderr).splitlines() if line.strip()]
    # Only a note: packages that this project does not use may be in the same environment.
    yield Finding("environment", "note", "; ".join(said), "make a virtual environment for this project alone")


def _unmet(requirement: Requirement) -> str | None:
    try:
        version = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return f"{requirement.name} is missing ({requirement.specifier} needed)"
    fits = requirement.specifier.contains(version, prereleases=True)
    return None if fits else f"{requirement.name} {version} is installed ({requirement.specifier} needed)"


def torch_and_gpus(device: str) -> Iterator[Finding]:
    """Version of PyTorch, and whether it sees a GPU if `device` is cuda."""
    import torch

    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    found = f"{torch.__version__}, {', '.join(gpus) or 'no GPU'}"
    if device == "cuda" and not gpus:
        build = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
        yield problem("torch", f"{found} ({build})", "install a driver and a CUDA build of torch, or use --device cpu")
    else:
        yield ok("torch", found)


# --- the machine -----------------------------------------------------------------------------------------------------


def memory() -> Iterator[Finding]:
    """Whether enough memory is free."""
    free = psutil.virtual_memory().available
    found = f"{free / GIB:.1f} GiB free"
    if free < LOW_MEMORY:
        yield problem(
            "memory", found, "end other programs, or limit the run, for example with --max-concurrent 1 --pack 8"
        )
    else:
        yield ok("memory", found)


def storage_place(uri: str) -> Iterator[Finding]:
    """Whether the storage can be written and, if it is local, has enough free space."""
    place = Storage(uri, f"doctor-{uuid.uuid4().hex}")
    if not place.local:
        place.prepare()  # uses a name of its own, so that no sweep is touched
        yield ok("storage", f"{uri} can be written")
        return
    folder = next(parent for parent in place.local_path.parents if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(bytes(4096))
    except OSError as error:
        yield problem(
            "storage", f"{folder} cannot be written ({error.strerror})", "choose another folder with --storage"
        )
        return
    made = "" if folder == place.local_path.parent else f"; {place.local_path.parent} will be made"
    yield ok("storage", f"{folder} can be written{made}")
    free = shutil.disk_usage(folder).free
    found = f"{free / GIB:.1f} GiB free at {folder}"
    yield ok("disk", found) if free >= LOW_DISK else problem("disk", found, "make room, or choose another --storage")


def tracking(uri: str) -> Iterator[Finding]:
    """Whether MLflow's database can be opened, or its server answers."""
    if (path := database(uri)) is not None:
        yield _database(path)
    elif uri.startswith(("http://", "https://")):
        yield _server(uri)
    else:
        yield Finding("tracking", "note", f"addresses of {uri.partition(':')[0]} are not checked")


def _database(path: Path) -> Finding:
    if not path.exists():
        return ok("tracking", f"{path} will be made by the first run")
    try:
        runs = count_runs(path)
    except DatabaseError as error:
        return problem(
            "tracking", f"{path}: {error}", "if it is damaged, move it away; the next run of a sweep makes a new one"
        )
    return ok("tracking", f"{path} holds {runs} runs")


def _server(uri: str) -> Finding:
    parts = urllib.parse.urlsplit(uri)
    address = parts.netloc.rpartition("@")[2]  # without a password
    url = urllib.parse.urlunsplit((parts.scheme, address, f"{parts.path.rstrip('/')}/health", "", ""))
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return ok("tracking", f"{address} answers {answer.read(100).decode(errors='replace').strip()!r}")
    except urllib.error.HTTPError as error:
        advice = "check that it is MLflow's, and set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        return problem("tracking", f"{address} answers {error.code} {error.reason}", advice)
    except OSError as error:
        reason = getattr(error, "reason", error)
        return problem("tracking", f"{address} does not answer ({reason})", "start it with: mlflow server")


def studies_found(folder: Path | None) -> Iterator[Finding]:
    """Which sweeps there are, and the files whose sweeps are missing."""
    log = logging.getLogger(known_sweeps.__module__)
    log.disabled = True  # its warnings say the same as these findings
    try:
        known = known_sweeps(folder)
    finally:
        log.disabled = False
    for path, reason in known.unusable.items():
        yield problem("studies", f"{path} cannot be used: {reason}", "correct it; other sweeps are not affected")
    for name, (one, other) in known.taken.items():
        yield problem("studies", f"{one} and {other} both have a sweep named {name!r}", "rename one of them")
    yield ok("studies", f"{', '.join(sorted(known.sweeps))} can be run")


def data_sets(data_dir: Path) -> Iterator[Finding]:
    """Which data sets are present, and how to get missing ones. Does not read their files."""
    from trainables.data import DATASETS
    from trainables.data.files import FileSet, MissingFiles

    for name, source in sorted(DATASETS.items()):
        if not isinstance(source, FileSet):
            yield ok("data", f"{name} is built in")
            continue
        try:
            source.files(data_dir)
        except MissingFiles as error:
            advice = "add --download to the run that needs it" if source.download else ""
            yield Finding("data", "note", f"{name} is missing: {error}", advice)
        else:
            yield ok("data", f"{name} is in {data_dir}")


# --- the command -----------------------------------------------------------------------------------------------------


def findings(
    *,
    storage: str,
    tracking_uri: str | None,
    studies: Path | None = None,
    data_dir: Path,
    ray: bool,
    address: str | None,
    device: str,
    nodes: int | None = None,
    wait_s: float = 0.0,
) -> Iterator[Finding]:
    """Runs all checks, one after another."""
    yield from safely("packages", python_and_packages)
    yield from safely("environment", environment)
    yield from safely("torch", lambda: torch_and_gpus(device))
    yield from safely("memory", memory)
    yield from safely("storage", lambda: storage_place(storage))
    if tracking_uri is None and "://" not in storage:
        tracking_uri = of_database(Path(storage) / "mlflow.db")
    if tracking_uri is None:
        yield Finding("tracking", "note", "the storage is not a folder", "a run needs --tracking-uri")
    else:
        uri = tracking_uri
        yield from safely("tracking", lambda: tracking(uri))
    yield from safely("studies", lambda: studies_found(studies))
    yield from safely("data", lambda: data_sets(data_dir))
    if ray or address is not None:
        from sweeps.on_ray.nodes import ray_cluster  # Ray takes seconds to import

        yield from safely("ray", lambda: ray_cluster(address, device, nodes, wait_s))


def doctor(
    storage: Annotated[str, typer.Option(metavar="URI", help="Folder or URI for the sweeps.")] = "./runs",
    tracking_uri: Annotated[
        str | None,
        typer.Option(metavar="URI", help="MLflow's server or database; default: a file in the storage folder."),
    ] = None,
    studies: Studies = None,
    data_dir: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the data sets.")] = Path("data"),
    device: Annotated[str, typer.Option(help="Device: auto, cpu or cuda.")] = "auto",
    ray: Annotated[bool, typer.Option("--ray", help="Also start Ray on this machine; takes seconds.")] = False,
    address: Annotated[str | None, typer.Option(metavar="RAY_ADDRESS", help="Also check this Ray cluster.")] = None,
    nodes: Annotated[int | None, typer.Option(min=1, help="Number of nodes that the cluster must have.")] = None,
    wait: Annotated[float, typer.Option(metavar="SECONDS", min=0, help="Longest time to wait for the nodes.")] = 0.0,
) -> int:
    """Checks whether sweeps can run here, and says how to fix problems. Exit codes: 0 no problem, 1 a problem."""
    check_device(device)
    if nodes is not None and address is None:
        raise UserError(f"--nodes {nodes} needs a cluster; add --address, for example --address auto on its head")
    worst = OK
    for finding in findings(
        storage=storage,
        tracking_uri=tracking_uri,
        studies=studies,
        data_dir=data_dir,
        ray=ray,
        address=address,
        device=device,
        nodes=nodes,
        wait_s=wait,
    ):
        print(finding, flush=True)
        worst = INTERNAL if finding.level == "problem" else worst
    return worst


if __name__ == "__main__":
    run_app(single(doctor), "python -m sweeps.doctor")
