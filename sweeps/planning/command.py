"""The command that runs a plan."""

import json
import shlex

from sweeps.planning.plan import Overrides, Plan


def run_command(plan: Plan, storage_uri: str) -> str:
    """The command that runs a plan, as one would type it."""
    chosen: Overrides = plan.overrides
    words = ["python", "-m", "sweeps.run", plan.asked]
    words += ["--scale", chosen.scale] if chosen.scale is not None else []
    if chosen.search is not None:
        words += ["--search", chosen.search.sampler, "--halving", str(chosen.search.halving)]
        words += ["--budget", str(chosen.search.budget)] if chosen.search.budget is not None else []
    words += [word for name, other in chosen.stand_ins for word in ("--stand-in", f"{name}={other}")]
    words += ["--only", chosen.only] if chosen.only is not None else []
    for path, value in chosen.values:
        words += ["--set", f"{path}={json.dumps(value)}"]
    words += ["--seeds", str(chosen.seeds)] if chosen.seeds is not None else []
    words += ["--storage", storage_uri] if storage_uri != "./runs" else []
    return shlex.join(words)
