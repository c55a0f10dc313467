"""What happens in a run as JSON, an object a line, for programs that watch it.

    {"event": "started", "time": "…", "members": [{"study": …, "key": …, "seed": …, "labels": {…}}, …]}
    {"event": "progressed", "time": "…", "epoch": 3, "keys": […], "metrics": {"elbo": [a number a key], …}}
    {"event": "ended", "time": "…", "study": …, "key": …, "status": "finished", "metrics": {…}, …}
    {"event": "summary", "time": "…", "done": …, "failed": …, "best": [{"study": …, …}], "report": …, "exit_code": 0}

Metrics are of the last epoch; null stands for what is not a finite number.
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

import numpy as np

from sweeps.planning.plan import Member
from sweeps.records.ledger import Row, now


class JsonLog:
    """Writes a line to a stream for everything it hears."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, event: str, **content: Any) -> None:
        """Writes one event."""
        line = {"event": event, "time": now().isoformat()} | _finite(content)
        print(json.dumps(line, allow_nan=False, default=str), file=self._stream, flush=True)

    def started(self, members: Sequence[Member]) -> None:
        self.write("started", members=[_member(member) for member in members])

    def progressed(self, members: Sequence[Member], since: int, history: Mapping[str, np.ndarray]) -> None:
        epochs = len(next(iter(history.values()), ()))
        if epochs:
            last = {name: values[-1].tolist() for name, values in history.items()}
            self.write("progressed", epoch=since + epochs, keys=[member.key for member in members], metrics=last)

    def ended(self, members: Sequence[Member], rows: Mapping[str, Row]) -> None:
        for member in members:
            row = rows[member.key]
            came_of_it = {name: getattr(row, name) for name in ("status", "reason", "epochs", "wall_s", "metrics")}
            self.write("ended", **_member(member), **came_of_it)


def _member(member: Member) -> dict[str, Any]:
    return {"study": member.study, "key": member.key, "seed": member.config.seed, "labels": member.labels}


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
