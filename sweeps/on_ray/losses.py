"""How often a cohort whose process or node was lost is tried again.

A loss is nobody's error: the cohort goes on from its checkpoint. Only one that is lost again and again without having
saved anything new would go on for ever, say because it takes more memory than there is. A node that died excuses one
loss, so that preempted machines do not count, up to a number: a cohort can bring a node down, too.
"""

LOSSES, NODES = 3, 20


class Losses:
    """The losses of each cohort since it last saved a checkpoint."""

    def __init__(self) -> None:
        self._since: dict[str, tuple[int, int]] = {}
        """By cohort: when its last checkpoint known was written, and the losses since."""

    def again(self, cohort: str, *, saved_ns: int, dead_nodes: int) -> bool:
        """Counts a loss of a cohort, and says whether to try it again.

        Args:
            cohort: its key.
            saved_ns: when its last checkpoint was written; 0 if there is none.
            dead_nodes: how many nodes have died since the run began. A death becomes known some seconds after the
                losses it causes, so it cannot be told which.
        """
        known_ns, losses = self._since.get(cohort, (saved_ns, 0))
        losses = 1 if saved_ns > known_ns else losses + 1
        self._since[cohort] = (saved_ns, losses)
        return losses <= LOSSES + min(dead_nodes, NODES)
