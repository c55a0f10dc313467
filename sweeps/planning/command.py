"""The command that trains what is missing: the one that the sweep was last run with."""

import json
import os
import shlex
from dataclasses import dataclass

from sweeps.planning.plan import Plan
from sweeps.records.storage import Storage
from sweeps.redact import redact

_DEFAULT_STORAGE = "./runs"


@dataclass(frozen=True)
class Command:
    """How `sweeps.run` was called.

    words: the sweep's name and the options that were given, without those that hold for one call only and without
        `--storage`, since a storage can be moved; passwords in them are replaced.
    folder: the working directory, which relative paths in them start from.
    """

    words: tuple[str, ...]
    folder: str

    def text(self, storage: Storage, *more: str) -> str:
        """The command as one types it here, with more words that it may lack.

        Args:
            storage: of the sweep, as the command that asks was given it.
        """
        uri, go = storage.uri, ""
        if self.folder != os.getcwd():
            uri = str(storage.local_path.parent) if storage.local else uri
            go = f"cd {shlex.quote(self.folder)} && "
        words = ["python", "-m", "sweeps.run", *self.words]
        words += [] if uri == _DEFAULT_STORAGE else ["--storage", uri]
        words += [word for word in more if word not in words]
        return redact(go + shlex.join(words))


def called_here(words: tuple[str, ...]) -> Command:
    """A command with these words in the present working directory."""
    return Command(tuple(map(redact, words)), os.getcwd())


def of_plan(plan: Plan) -> Command:
    """The command with the options that a plan knows of: for a sweep whose sessions do not name theirs."""
    chosen = plan.overrides
    words = [plan.asked]
    words += ["--scale", chosen.scale] if chosen.scale is not None else []
    if chosen.search is not None:
        words += ["--search", chosen.search.sampler, "--halving", str(chosen.search.halving)]
        words += ["--budget", str(chosen.search.budget)] if chosen.search.budget is not None else []
    words += [word for name, other in chosen.stand_ins for word in ("--stand-in", f"{name}={other}")]
    words += ["--only", chosen.only] if chosen.only is not None else []
    for path, value in chosen.values:
        words += ["--set", f"{path}={json.dumps(value)}"]
    words += ["--seeds", str(chosen.seeds)] if chosen.seeds is not None else []
    return called_here(tuple(words))
