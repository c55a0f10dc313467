"""The interface of whoever follows a run: the progress view, the JSON log, MLflow.

The driver calls its listeners on its own thread, one after the other; none of them may block.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

from sweeps.planning.plan import Member
from sweeps.records.ledger import Row
from trainables.reports import History


class Listener(Protocol):
    """Follows the members of a run. A member that several studies share is named once for each of them."""

    def found(self, members: Sequence[Member], rows: Mapping[str, Row]) -> None:
        """Members that have become known in this run, and that were trained before.

        Args:
            members: their number may be less than planned: two winners can make one configuration.
            rows: the ledger's, by key; holds a row for each of these members.
        """
        ...

    def started(self, members: Sequence[Member]) -> None:
        """A cohort begins."""
        ...

    def progressed(self, members: Sequence[Member], since: int, history: History) -> None:
        """Metrics [epochs, M] of a cohort's epochs after `since`, in the order of the members."""
        ...

    def ended(self, members: Sequence[Member], rows: Mapping[str, Row]) -> None:
        """Members that have ended in this run; `rows` holds a row for each of them."""
        ...
