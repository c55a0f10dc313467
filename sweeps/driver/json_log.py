"""Writes the events of a run as JSON, one object a line, for programs that watch it.

    {"event": "started", "time": "…", "cohort": …, "members": [{"study": …, "key": …, "seed": …, "labels": {…}}, …]}
    {"event": "progressed", "time": "…", "cohort": …, "epoch": 3, "members": 64}
    {"event": "ended", "time": "…", "study": …, "key": …, "status": "finished", "metrics": {…}, …}
    {"event": "summary", "time": "…", "done": …, "failed": …, "best": [{"study": …, …}], "report": …, "exit_code": 0}

"cohort" is the key of the cohort's first member. With metrics, `progressed` also has "keys": [a key a member] and
"metrics": {"elbo": [a number a member], …} of the last epoch; this makes kilobytes a second for large cohorts.
A number that is not finite is written as null.
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from sweeps.cli import go_on_without
from sweeps.planning.plan import Member
from sweeps.records.ledger import Row, now
from trainables.reports import History


class JsonLog:
    """Writes a line for each event.

    Args:
        stream: the stream to write to.
        metrics: whether each `progressed` event has the metrics of every member.
    """

    def __init__(self, stream: TextIO, *, metrics: bool = False):
        self._stream, self._metrics = stream, metrics

    def write(self, event: str, **content: Any) -> None:
        """Writes one event."""
        line = {"event": event, "time": now().isoformat()} | _finite(content)
        try:
            print(json.dumps(line, allow_nan=False, default=str), file=self._stream, flush=True)
        except BrokenPipeError:
            go_on_without(self._stream)

    def found(self, members: Sequence[Member], rows: Mapping[str, Row]) -> None:
        pass  # nothing happened to them in this run

    def tick(self) -> None:
        pass

    def started(self, members: Sequence[Member]) -> None:
        self.write("started", cohort=members[0].key, members=[_member(member) for member in members])

    def progressed(self, members: Sequence[Member], since: int, history: History) -> None:
        epochs = len(next(iter(history.values()), ()))
        if not epochs:
            return
        content: dict[str, Any] = {"cohort": members[0].key, "epoch": since + epochs, "members": len(members)}
        if self._metrics:
            content["keys"] = [member.key for member in members]
            content["metrics"] = {name: values[-1].tolist() for name, values in history.items()}
        self.write("progressed", **content)

    def ended(self, members: Sequence[Member], rows: Mapping[str, Row]) -> None:
        for member in members:
            row = rows[member.key]
            outcome = {name: getattr(row, name) for name in ("status", "reason", "epochs", "wall_s", "metrics")}
            self.write("ended", **_member(member), **outcome)


def _member(member: Member) -> dict[str, Any]:
    return {"study": member.study, "key": member.key, "seed": member.config.seed, "labels": member.labels}


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
