"""One driver at a time: a lock file in a sweep's folder that says who is running it.

Locally the file is created exclusively, and the operating system knows whether its holder lives. Elsewhere pyarrow
offers no exclusive creation: the file is written, and read back after a pause, so that of two drivers which come within
that pause only the last keeps it. A driver that hangs for longer than the pause between its look and its write can slip
in; its victim notices with the next heartbeat and stops. Two drivers cost trainings done twice, never the ledger.

A holder on another host is judged by its heartbeat, timed by the storage's own clock. Hosts are told apart by name.
"""

import contextlib
import json
import logging
import math
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from uuid import uuid4

import psutil
from pydantic import TypeAdapter, ValidationError

from sweeps.errors import UserError
from sweeps.records.storage import Storage

FILE = "lock.json"
BEAT_EVERY_S, STALE_AFTER_S = 30.0, 300.0
_PAUSE_S = 2.0  # longer than a small upload takes
_RACE_S = 0.2  # the same for a local file system, where only takeovers need it
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Holder:
    """Who runs a sweep."""

    host: str
    pid: int
    started_s: float
    """When its process started, in seconds after its machine did: no clock that is set changes it."""
    since: str
    """When it took the lock, for people."""
    token: str
    """Tells two holders apart."""
    since_s: float
    """When it took the lock, in seconds since 1970 by its own clock."""

    @classmethod
    def here(cls) -> "Holder":
        """The process that calls."""
        since = datetime.now().astimezone()
        return cls(
            host=socket.gethostname(),
            pid=os.getpid(),
            started_s=_started_s(os.getpid()),
            since=since.strftime("%Y-%m-%d %H:%M %Z"),
            token=uuid4().hex,
            since_s=since.timestamp(),
        )

    @classmethod
    def from_json(cls, content: bytes) -> "Holder":
        """What `to_json` wrote; raises ValidationError for anything else."""
        return TypeAdapter(cls).validate_json(content)

    def to_json(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @property
    def local(self) -> bool:
        """Whether it is on this host."""
        return self.host == socket.gethostname()

    def lives(self) -> bool:
        """Whether its process runs; only where `local`."""
        return abs(_started_s(self.pid) - self.started_s) < 1  # NaN, of no process, is near to nothing

    def __str__(self) -> str:
        return f"host {self.host}, pid {self.pid}, since {self.since}"


def _started_s(pid: int) -> float:
    """Seconds from the machine's start to the process's; NaN where there is no such process."""
    try:
        process = psutil.Process(pid)
        return math.nan if process.status() == psutil.STATUS_ZOMBIE else process.create_time() - psutil.boot_time()
    except (psutil.NoSuchProcess, ValueError):  # the latter of a number below 0
        return math.nan


def _holder(storage: Storage) -> Holder | None:
    """Who holds the lock; None for nobody, or for a file that its driver did not live to fill."""
    try:
        return Holder.from_json(storage.read(FILE))
    except (FileNotFoundError, ValidationError):
        return None


def running(storage: Storage) -> Holder | None:
    """The driver at work on a sweep, without writing anything: one elsewhere is judged by this machine's clock."""
    holder = _holder(storage)
    if holder is None:
        return None
    if holder.local:
        return holder if holder.lives() else None
    with contextlib.suppress(FileNotFoundError):
        return holder if time.time() - storage.written_s(FILE) <= STALE_AFTER_S else None
    return None


def _interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


class Lock:
    """Held by the driver in a `with` statement, for as long as it may write.

    Args:
        storage: the sweep's; its folder must exist.
        lost: called on the heartbeat's thread when another driver has taken the lock; interrupts the run by default.
        beat_every_s: between two heartbeats.
        stale_after_s: the silence after which a holder on another host counts as gone.
        pause_s: between writing the lock and reading it back.

    Raises:
        UserError: on entry, where somebody else holds it.
    """

    def __init__(
        self,
        storage: Storage,
        *,
        lost: Callable[[], None] = _interrupt,
        beat_every_s: float = BEAT_EVERY_S,
        stale_after_s: float = STALE_AFTER_S,
        pause_s: float | None = None,
    ):
        self._storage, self._lost = storage, lost
        self._beat_every_s, self._stale_after_s = beat_every_s, stale_after_s
        self._pause_s = (_RACE_S if storage.local else _PAUSE_S) if pause_s is None else pause_s
        self._own = Holder.here()
        self._released = threading.Event()
        self._beating = threading.Thread(target=self._beat, name="lock", daemon=True)

    def __enter__(self) -> "Lock":
        content = self._own.to_json()
        if not self._storage.create(FILE, content):
            self._refuse(_holder(self._storage))
            self._storage.write(FILE, content)
            time.sleep(self._pause_s)
        elif not self._storage.local:
            time.sleep(self._pause_s)
        holder = _holder(self._storage)
        if holder is None or holder.token != self._own.token:
            raise UserError(self._complaint(holder))
        self._storage.delete_leftovers()
        self._beating.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._released.set()
        self._beating.join()
        # Where the storage has failed the lock stays; the process that it names will be gone.
        with contextlib.suppress(OSError, UserError):
            if (holder := _holder(self._storage)) is not None and holder.token == self._own.token:
                self._storage.delete(FILE)

    def _refuse(self, holder: Holder | None) -> None:
        """Raises UserError where a holder is to be believed."""
        if holder is None:
            # Perhaps created this moment, and not filled yet.
            time.sleep(self._pause_s)
            holder = _holder(self._storage)
        if holder is None:
            return
        stale = not holder.lives() if holder.local else self._storage.age_s(FILE) > self._stale_after_s
        if not stale:
            raise UserError(self._complaint(holder))
        log.warning("Taking over from a run that is gone (%s).", holder)

    def _complaint(self, holder: Holder | None) -> str:
        message = f"sweep {self._storage.name!r} in {self._storage.uri!r} is being run by {holder or 'another driver'}"
        if holder is None or holder.local:
            return f"{message}; wait for it, end it, or use another --storage"
        return (
            f"{message}; this command takes over {self._stale_after_s / 60:g} minutes after its last sign of life; if "
            f"you are sure that it is gone, delete {FILE} in {self._storage.full_uri}"
        )

    def _beat(self) -> None:
        while not self._released.wait(self._beat_every_s):
            # A storage that fails for a moment costs heartbeats; the driver's own writes tell whether it is worse.
            with contextlib.suppress(OSError, UserError):
                holder = _holder(self._storage)
                if holder is not None and holder.token != self._own.token:
                    log.warning("This run stops: another one (%s) took it over.", holder)
                    self._lost()
                    return
                self._storage.write(FILE, self._own.to_json())
