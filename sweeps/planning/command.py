"""The command that trains the missing members: the one with which the sweep was last run."""

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

    words: the sweep's name and the options that were given. Options for one call only are left out, and `--storage`
        too, since a storage can be moved. Passwords are replaced.
    folder: the working directory, from which relative paths in `words` start.
    """

    words: tuple[str, ...]
    folder: str

    def text(self, storage: Storage, *more: str) -> str:
        """The command as one types it in the current folder.

        Args:
            storage: storage of the sweep, as given to the current command.
            more: words to add, if the command lacks them.
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
    """A command with these words in the current working directory; replaces passwords in them."""
    return Command(tuple(map(redact, words)), os.getcwd())


def of_plan(plan: Plan) -> Command:
    """The command rebuilt from a plan, for sweeps whose sessions do not have one. Has only the options of the plan."""
    chosen = plan.overrides
    words = list(plan.original.words)
    words += ["--scale", chosen.scale] if chosen.scale is not None else []
    if chosen.search is not None:
        words += ["--search", chosen.search.sampler, "--halving", str(chosen.search.halving)]
        words += ["--budget", str(chosen.search.budget)] if chosen.search.budget is not None else []
    words += [word for name, other in chosen.stand_ins for word in ("--stand-in", f"{name}={other}")]
    words += ["--only", chosen.only] if chosen.only is not None else []
    for path, value in chosen.values:
        words += ["--set", f"{path}={json.dumps(value)}"]
    words += ["--seeds", str(chosen.seeds)] if chosen.seeds is not None else []
    words += ["--confirm", str(chosen.confirm)] if chosen.confirm is not None else []
    return called_here(tuple(words))
