"""The common part of the benchmarks: arguments, the machine and its ceilings, clocks, and the JSON file."""

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

Report = dict[str, Any]


def parser(description: str | None, *, trains: bool = True) -> argparse.ArgumentParser:
    """The parser of a benchmark, with the arguments that all have.

    Args:
        description: the module's docstring; `--help` prints it as it is.
        trains: whether the benchmark computes on a device of the user's choice.
    """
    common = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    common.add_argument("--json", type=Path, metavar="FILE", help="also write machine and rows to this file")
    if trains:
        common.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
        common.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of PyTorch, on a CPU")
    return common


def begin(args: argparse.Namespace, **about: Any) -> tuple[torch.device, Report]:
    """Sets PyTorch's threads and prints the machine in one line.

    Args:
        args: the result of a parser that was made by `parser`.
        about: further facts to print and record with the machine.

    Returns:
        The device, and a report without rows.
    """
    device = torch.device(getattr(args, "device", "cpu"))
    if hasattr(args, "threads"):
        torch.set_num_threads(args.threads)
    report: Report = {"machine": machine(device) | about, "rows": []}
    print(", ".join(f"{name} {value}" for name, value in report["machine"].items()), flush=True)
    return device, report


def machine(device: torch.device) -> Report:
    """The hardware and the versions that numbers were measured with."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
        models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        name = models[0] if models else platform.processor()
    return {
        "device": name,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "ray": metadata.version("ray"),
    }


def seconds(function: Callable[[], Any], device: torch.device) -> float:
    """Time of one call, until the device has finished what the call started.

    On one thread of a CPU this is processor time, which other programs do not change. Otherwise it is wall time.
    """
    clock = time.process_time if device.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    _wait(device)
    started = clock()
    function()
    _wait(device)
    return clock() - started


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def ceilings(device: torch.device, *, size: int | None = None, rounds: int = 5) -> dict[str, float]:
    """The machine's highest rates: of square matrix products in operations a second, of a copy in bytes a second.

    The best of some rounds counts.
    """
    n = size or (8192 if device.type == "cuda" else 1024)
    best = {}
    for name, dtype in (("float32", torch.float32), ("bf16", torch.bfloat16)):
        a = torch.randn(n, n, device=device).to(dtype)
        seconds(lambda a=a: a @ a, device)
        best[name] = 2 * n**3 / min(seconds(lambda a=a: a @ a, device) for _ in range(rounds))
    source = torch.zeros(16 * n * n, device=device)
    target = torch.empty_like(source)
    best["copy"] = 2 * source.nbytes / min(seconds(lambda: target.copy_(source), device) for _ in range(rounds))
    return best


def peak_mib() -> float:
    """The most memory that this process has used so far, in MiB."""
    # Not `getrusage`: on Linux a process begins with the peak of the one that started it.
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def write(path: Path | None, report: Report) -> None:
    """Writes a report as JSON, if `--json` named a file."""
    if path:
        path.write_text(json.dumps(report, indent=2) + "\n")
