"""Tells that cohorts wait and none is trained, once a minute; a Ray that nobody can extend is given up in the end."""

import logging
import time

from sweeps.on_ray.watch import RayLostError

TELL_EVERY_S = 60.0
GIVE_UP_S = 300.0
"""Seconds without any training after which the Ray of one machine is given up; starting a process may take minutes."""
log = logging.getLogger(__name__)


class Idle:
    """The time in which cohorts wait and none is trained.

    Args:
        own: whether this process has started the Ray. A cluster may get nodes at any time, so it is never given up.
    """

    def __init__(self, *, own: bool):
        self._own = own
        self._since = self._told = time.monotonic()

    def step(self, training: int, handed_out: int, alive_nodes: int) -> None:
        """Notes the state; called about ten times a second.

        Args:
            training: cohorts that have begun to train.
            handed_out: cohorts that Ray has been given, including these.
            alive_nodes: nodes of the cluster.

        Raises:
            RayLostError: a Ray that this process has started has no node, or has not trained for minutes.
        """
        now = time.monotonic()
        if training or not handed_out:
            self._since = self._told = now
            return
        if now - self._told < TELL_EVERY_S:
            return
        self._told = now
        waited_s = now - self._since
        why = "no node of the cluster is alive" if not alive_nodes else "Ray has started none of them"
        what = f"{handed_out} cohorts have waited for {waited_s:.0f} s: {why}"
        if self._own and (not alive_nodes or waited_s >= GIVE_UP_S):
            raise RayLostError(what)
        log.warning("%s; Ctrl-C ends the wait, and the same command goes on.", what)
