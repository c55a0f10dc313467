"""One driver at a time: a lock file in a sweep's folder that says who is running it.

The lock is a fence as well. Before the holder's storage changes anything, the lock file is read: if it names another
holder, or is gone, `LockLostError` is raised and nothing is written. So a driver that was stopped for minutes, while
another one took over, does no harm when it goes on, whatever signals it ignores.

On this host the operating system knows whether a holder lives. A holder on another host is judged by its heartbeat,
timed by the storage's own clock. Hosts are told apart by name.
"""

import contextlib
import json
import logging
import math
import os
import socket
import threading
import time
from dataclasses import asdict, dataclass
from datetime import datetime
from uuid import uuid4

import psutil
from pydantic import TypeAdapter, ValidationError

from sweeps.errors import UserError
from sweeps.records.lock_file import FILE, LockFile, Version, lock_file
from sweeps.records.storage import Storage

BEAT_EVERY_S, STALE_AFTER_S = 30.0, 300.0
log = logging.getLogger(__name__)


class LockLostError(UserError):
    """Another driver has taken over; this one may write nothing any more."""


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


def _holder(version: Version | None) -> Holder | None:
    """The holder that a lock file names; None for no file, or one that its driver did not live to fill."""
    with contextlib.suppress(ValidationError):
        return None if version is None else Holder.from_json(version.content)
    return None


def running(storage: Storage) -> Holder | None:
    """The driver at work on a sweep; nothing is written. A driver elsewhere is judged by this machine's clock."""
    try:
        holder = _holder(Version(storage.read(FILE)))
    except FileNotFoundError:
        return None
    if holder is None:
        return None
    if holder.local:
        return holder if holder.lives() else None
    with contextlib.suppress(FileNotFoundError):
        return holder if time.time() - storage.modified_s(FILE) <= STALE_AFTER_S else None
    return None


class Lock:
    """Held by the driver in a `with` statement, for as long as it may write.

    Args:
        storage: the sweep's; its folder must exist. Its `fence` and `check` raise LockLostError once the lock is lost.
        beat_every_s: between two heartbeats.
        stale_after_s: the silence after which a holder on another host counts as gone.
        pause_s: between writing the lock and reading it back, where this is needed; None for the usual time.

    Raises:
        UserError: on entry, if somebody else holds it.
    """

    def __init__(
        self,
        storage: Storage,
        *,
        beat_every_s: float = BEAT_EVERY_S,
        stale_after_s: float = STALE_AFTER_S,
        pause_s: float | None = None,
    ):
        self._storage, self._pause_s = storage, pause_s
        self._beat_every_s, self._stale_after_s = beat_every_s, stale_after_s
        self._own = Holder.here()
        self._lost: LockLostError | None = None
        self._released = threading.Event()
        self._beating = threading.Thread(target=self._beat, name="lock", daemon=True)

    def __enter__(self) -> "Lock":
        # The lock's own file is changed through a storage of its own, which has no fence.
        self._file: LockFile = lock_file(Storage(self._storage.uri, self._storage.name), self._pause_s)
        self._version = self._taken()
        self._storage.delete_leftovers()
        self._storage.fence, self._storage.check = self._fence, self._check
        self._beating.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._released.set()
        self._beating.join()
        self._storage.fence = self._storage.check = lambda: None
        # If the storage has failed the lock stays; the process that it names will be gone.
        with contextlib.suppress(OSError, UserError):
            if self._holds():
                self._file.delete()

    def _taken(self) -> Version:
        content = self._own.to_json()
        if (created := self._file.create(content)) is not None:
            return created
        there = self._file.read()
        if _holder(there) is None:
            time.sleep(0.2)  # perhaps created at this moment, and not filled yet
            there = self._file.read()
        holder = _holder(there)
        if holder is not None:
            self._refuse(holder)
        taken = self._file.create(content) if there is None else self._file.replace(there, content)
        if taken is None:
            raise UserError(self._complaint(_holder(self._file.read())))
        return taken

    def _refuse(self, holder: Holder) -> None:
        """Raises UserError unless a holder is gone."""
        if not holder.lives() if holder.local else self._file.age_s() > self._stale_after_s:
            log.warning("Taking over from a run that is gone (%s).", holder)
        else:
            raise UserError(self._complaint(holder))

    def _complaint(self, holder: Holder | None) -> str:
        message = f"sweep {self._storage.name!r} in {self._storage.uri!r} is being run by {holder or 'another driver'}"
        if holder is None or holder.local:
            return f"{message}; wait for it, end it, or use another --storage"
        return (
            f"{message}; this command takes over {self._stale_after_s / 60:g} minutes after its last sign of life; if "
            f"you are sure that it is gone, delete {FILE} in {self._storage.full_uri}"
        )

    def _holds(self) -> bool:
        """Whether the file still names this holder; the storage is asked."""
        if self._lost is None:
            version = self._file.read()
            holder = _holder(version)
            if holder is None or holder.token != self._own.token:
                who = "its lock is gone" if version is None else f"it was taken over by {holder or 'another driver'}"
                self._lost = LockLostError(
                    f"this run of {self._storage.name!r} stops and writes nothing more, since {who}; the same command "
                    "goes on once no other one is at work"
                )
        return self._lost is None

    def _check(self) -> None:
        if self._lost is not None:
            raise self._lost

    def _fence(self) -> None:
        self._holds()
        self._check()

    def _beat(self) -> None:
        while not self._released.wait(self._beat_every_s):
            # A storage that fails for a moment costs heartbeats; the driver's own writes tell whether it is worse.
            with contextlib.suppress(OSError, UserError):
                if not self._holds():
                    return
                self._file.refresh(self._version)
