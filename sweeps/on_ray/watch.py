"""Notices that Ray cannot go on. Ray waits for ever without its raylet, and ends the process without its GCS.

A thread watches, since calls of Ray may block. The driver's own thread asks about ten times a second. If it does not
end in time, because a call of Ray blocks it, the watching thread ends the process.
"""

import atexit
import contextlib
import os
import socket
import sys
import threading
import time
from collections.abc import Callable

import psutil

from sweeps import cli
from sweeps.errors import INTERRUPTED, UNUSABLE, UserError

AWAY_S = 60.0
"""How long the head of a cluster may be away, in seconds."""
GRACE_S = 5.0
"""Seconds that the driver's own thread has to end."""
_EVERY_S = 0.2
_ANSWER_S = 5.0
_NEEDED = {"gcs_server", "raylet"}
"""The processes of `ray.init` that no training goes on without."""


class RayLostError(UserError):
    """Ray has ended, or does not answer any more."""


class Watch:
    """A context that watches Ray.

    Args:
        find: called several times a second; returns what is wrong, or None.
        kill: called before the watching thread ends the process.
        advice: what the user can do; printed if the watching thread has to end the process.
    """

    def __init__(self, find: Callable[[], str | None], kill: Callable[[], None] = lambda: None, advice: str = ""):
        self._find, self._kill, self._advice = find, kill, advice
        self._problem: str | None = None
        self.interrupted = False
        """Whether the run was interrupted, so that the end of Ray is no surprise."""
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._work, name="ray-watch", daemon=True)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the watch. The process will not be ended any more."""
        self._closed.set()
        self._thread.join()

    @property
    def lost(self) -> bool:
        """Whether Ray cannot go on."""
        return self._problem is not None

    def check(self) -> None:
        """Raises RayLostError if Ray cannot go on."""
        if self._problem is not None:
            raise RayLostError(self._problem)

    def _work(self) -> None:
        while self._problem is None and not self._closed.wait(_EVERY_S):
            self._problem = self._find()
        if not self._closed.wait(GRACE_S):
            problem = "Interrupted, and Ray has ended too" if self.interrupted else self._problem
            print(f"{problem}; {self._advice}", file=sys.stderr, flush=True)
            self._kill()
            os._exit(INTERRUPTED if self.interrupted else UNUSABLE)


def end_without_ray() -> None:
    """Ends this process at its normal end at once: Ray's own clean-up would wait for what has ended, or crash."""
    atexit.register(_end)


def _end() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(cli.exit_code)


class OwnRay:
    """The processes of a Ray that this process starts."""

    def __init__(self) -> None:
        self._found: dict[str, psutil.Process] = {}

    def ended(self) -> str | None:
        """Which process has ended, in words; None if none has."""
        if self._found.keys() < _NEEDED:
            for child in psutil.Process().children():
                with contextlib.suppress(psutil.NoSuchProcess):
                    if (name := child.name()) in _NEEDED:
                        self._found[name] = child
        for name, process in self._found.items():
            if _gone(process):
                return f"Ray's {name} has ended (it was killed, memory ran out, or the machine is overloaded)"
        return None

    def kill(self) -> None:
        """Kills its processes and their workers, which would outlive a raylet that was killed."""
        raylet, own = self._found.get("raylet"), list(self._found.values())
        for process in self._found.values():
            with contextlib.suppress(psutil.Error):
                own += process.children(recursive=True)
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                of_raylet = raylet is not None and process.environ().get("RAY_RAYLET_PID") == str(raylet.pid)
                if process in own or of_raylet:
                    process.kill()


def _gone(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    return True


class Head:
    """The head of a cluster, at host:port."""

    def __init__(self, place: str):
        self._place = place
        self._asked = self._answered = time.monotonic()

    def away(self) -> str | None:
        """Says for how long it has not answered, if this is too long; None if not. May take five seconds."""
        if time.monotonic() - self._asked >= _ANSWER_S:
            self._asked = time.monotonic()
            host, _, port = self._place.rpartition(":")
            with (
                contextlib.suppress(OSError),
                socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_S),
            ):
                self._answered = time.monotonic()
        away_s = time.monotonic() - self._answered
        return (
            f"the head of the cluster ({self._place}) has not answered for {away_s:.0f} s" if away_s > AWAY_S else None
        )
