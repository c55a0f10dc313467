"""Decides how often a cohort is tried again after its process or node was lost.

A lost cohort is retried from its checkpoint while it makes progress. A limit is needed for a cohort that is lost again
and again without a new checkpoint, for example because it needs more memory than there is. Each dead node allows one
more loss, so that preempted machines do not count. This too is limited, since a cohort can bring a node down.
"""

LOSSES, NODES = 3, 20
"""Losses of a cohort without a new checkpoint that are retried, and dead nodes that allow one more loss each."""


class Losses:
    """The losses of each cohort since it last saved a checkpoint."""

    def __init__(self) -> None:
        self._since: dict[str, tuple[int, int]] = {}
        """By cohort, when its last known checkpoint was written, and the number of losses since."""

    def again(self, cohort: str, *, saved_ns: int, dead_nodes: int) -> bool:
        """Counts a loss of a cohort, and tells whether to try it again.

        Args:
            cohort: key of the cohort.
            saved_ns: when its last checkpoint was written, in nanoseconds; 0 if there is none.
            dead_nodes: how many nodes have died since the run began. A death becomes known some seconds after the
                losses that it causes, so deaths are not assigned to losses.
        """
        known_ns, losses = self._since.get(cohort, (saved_ns, 0))
        losses = 1 if saved_ns != known_ns else losses + 1  # not >: the clock may have been set back
        self._since[cohort] = (saved_ns, losses)
        return losses <= LOSSES + min(dead_nodes, NODES)
