"""What the benchmarks share: the machine, its ceilings, and the file they write."""

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


def machine(device: torch.device) -> Report:
    """What the numbers were measured on."""
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
    """Time of one call, whatever it started on the device included.

    On one thread of a CPU it is the process's own time, so that other programs do not count; otherwise wall time.
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
    """The best of some rounds of square matrix products, in operations a second, and of a copy, in bytes a second."""
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
    """The most memory that this process has had so far."""
    # Not `getrusage`: on Linux a process begins with the peak of the one that started it.
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def show(about: Report) -> None:
    """Prints the machine in one line."""
    print(", ".join(f"{name} {value}" for name, value in about.items()), flush=True)


def write(path: Path | None, report: Report) -> None:
    """Writes a report as JSON, if a file was asked for."""
    if path:
        path.write_text(json.dumps(report, indent=2) + "\n")
