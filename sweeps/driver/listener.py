"""The interface of listeners, which follow a run: the progress view, the JSON log, MLflow.

The driver calls its listeners on its own thread, one after another; they must not block.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

from sweeps.planning.plan import Member
from sweeps.records.ledger import Row
from trainables.reports import History


class Listener(Protocol):
    """Follows the members of a run. A member that several studies share is passed once for each study."""

    def found(self, members: Sequence[Member], rows: Mapping[str, Row]) -> None:
        """Called for members that have become known in this run but were trained before it.

        Args:
            members: these members; may be fewer than planned, since two winners can give the same configuration.
            rows: rows of the ledger by key, with a row for each of these members.
        """
        ...

    def tick(self) -> None:
        """Called about ten times a second, for work that depends on time alone; must cost next to nothing."""
        ...

    def started(self, members: Sequence[Member]) -> None:
        """Called when a cohort begins to train."""
        ...

    def progressed(self, members: Sequence[Member], since: int, history: History) -> None:
        """Called with metrics by name, [epochs, M] each, of a cohort's epochs after `since`; columns as `members`."""
        ...

    def ended(self, members: Sequence[Member], rows: Mapping[str, Row]) -> None:
        """Called when members have ended in this run; `rows` has a row for each of them."""
        ...
