"""The lock of a sweep: a lock file in the sweep's folder that names its one driver.

The lock is also a fence. The lock file is read before each change of the storage: if it names another holder, or is
gone, `LockLostError` is raised and nothing is written. A driver that was suspended while another one took over
therefore does no harm when it continues.

For a holder on this host, the operating system tells whether its process runs. A holder on another host is judged by
its heartbeat, by the storage's own clock. Hosts are identified by name.
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
from sweeps.records.storage import Storage, joined
from trainables.filesystem import Permit

BEAT_EVERY_S, STALE_AFTER_S = 30.0, 300.0
log = logging.getLogger(__name__)


class LockLostError(UserError):
    """The lock is gone or held by another driver; this driver must not write any more."""


@dataclass(frozen=True)
class Holder:
    """Who runs a sweep."""

    host: str
    pid: int
    started_s: float
    """When its process started, in seconds since its machine started: setting the clock does not change it."""
    since: str
    """When it took the lock, as text for people."""
    token: str
    """Random; identifies the holder."""
    since_s: float
    """When it took the lock, in seconds since 1970 by its own clock. Only earlier versions read it."""

    @classmethod
    def here(cls) -> "Holder":
        """The calling process."""
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
        """Reads the output of `to_json`; raises ValidationError for anything else."""
        return TypeAdapter(cls).validate_json(content)

    def to_json(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @property
    def local(self) -> bool:
        """Whether it is on this host."""
        return self.host == socket.gethostname()

    def lives(self) -> bool:
        """Whether its process runs; valid only if `local`."""
        return abs(_started_s(self.pid) - self.started_s) < 1  # false for NaN: no such process

    def __str__(self) -> str:
        return f"host {self.host}, pid {self.pid}, since {self.since}"


def _started_s(pid: int) -> float:
    """Seconds from the start of the machine to the start of the process; NaN if there is no such process."""
    try:
        process = psutil.Process(pid)
        return math.nan if process.status() == psutil.STATUS_ZOMBIE else process.create_time() - psutil.boot_time()
    except (psutil.NoSuchProcess, ValueError):  # ValueError for a negative pid
        return math.nan


def _holder(version: Version | None) -> Holder | None:
    """The holder that a lock file names; None if there is no file, or its driver was killed before it filled it."""
    with contextlib.suppress(ValidationError):
        return None if version is None else Holder.from_json(version.content)
    return None


def running(storage: Storage) -> Holder | None:
    """The driver that runs a sweep, or None. Only reads; judges a driver on another host by this machine's clock."""
    try:
        holder = _holder(Version(storage.read(FILE)))
    except FileNotFoundError:
        return None
    if holder is None:
        return None
    if holder.local:
        return holder if holder.lives() else None
    with contextlib.suppress(FileNotFoundError):
        return holder if abs(time.time() - storage.modified_s(FILE)) <= STALE_AFTER_S else None
    return None


def permit(storage: Storage) -> Permit | None:
    """A permission to write for the workers of this process, as long as it holds the lock; None without a lock.

    Raises:
        LockLostError: the lock is lost.
    """
    try:
        content = storage.read(FILE)
    except FileNotFoundError:
        content = None
    storage.fence()  # passes only if the content is this process's own
    return None if content is None else Permit(joined(storage.full_uri, FILE), content.decode())


class Lock:
    """The lock as a context manager: the driver holds it while it may write.

    Args:
        storage: storage of the sweep; its folder must exist. Its `fence` and `check` raise LockLostError once the lock
            is lost.
        beat_every_s: seconds between two heartbeats.
        stale_after_s: seconds without a heartbeat after which a holder on another host counts as gone.
        pause_s: seconds between writing the lock and reading it back, where this is needed; None for the default.

    Raises:
        UserError: on entry, if another driver holds the lock or the storage fails.
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
        # If the storage has failed, the lock stays. It does no harm: the process that it names will have ended.
        with contextlib.suppress(OSError, UserError):
            if self._holds():
                self._file.delete()

    def _taken(self) -> Version:
        content = self._own.to_json()
        if (created := self._file.create(content)) is not None:
            return created
        there = self._file.read()
        if _holder(there) is None:
            time.sleep(0.2)  # another driver may have created it just now, and not filled it yet
            there = self._file.read()
        holder = _holder(there)
        if holder is not None:
            self._refuse(holder)
        taken = self._file.create(content) if there is None else self._file.replace(there, content)
        if taken is None:
            raise UserError(self._complaint(_holder(self._file.read())))
        return taken

    def _refuse(self, holder: Holder) -> None:
        """Raises UserError unless the holder is gone."""
        if not holder.lives() if holder.local else self._silent(holder):
            log.warning("Taking over from a run that has ended without releasing its lock (%s).", holder)
        else:
            raise UserError(self._complaint(holder))

    def _silent(self, holder: Holder) -> bool:
        """Whether a holder on another host shows no sign of life.

        A clock that was set makes a heartbeat look old, or one of the future. So this waits for the next heartbeat.
        """
        if -self._beat_every_s <= self._file.age_s() <= self._stale_after_s:
            return False
        wait_s = 1.5 * self._beat_every_s
        log.warning("Waiting %.0f s for a sign of life of the run before (%s) …", wait_s, holder)
        time.sleep(wait_s)
        return not 0 <= self._file.age_s() <= wait_s + 1

    def _complaint(self, holder: Holder | None) -> str:
        message = f"sweep {self._storage.name!r} in {self._storage.uri!r} is being run by {holder or 'another driver'}"
        if holder is None or holder.local:
            return f"{message}; wait for it, end it, or use another --storage"
        return (
            f"{message}; try again {self._stale_after_s / 60:g} minutes after its last heartbeat, or, if it has "
            f"certainly ended, delete {FILE} in {self._storage.full_uri}"
        )

    def _holds(self) -> bool:
        """Whether the file still names this holder; reads the file."""
        if self._lost is None:
            version = self._file.read()
            if version is not None and version.content == self._version.content:
                return True
            holder = _holder(version)
            if holder is None or holder.token != self._own.token:
                why = "its lock file is gone" if version is None else f"{holder or 'another driver'} has taken over"
                self._lost = LockLostError(
                    f"this run of {self._storage.name!r} stops and writes nothing more: {why}; run the same command "
                    "again when no other run is active"
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
            # A short failure of the storage only costs heartbeats; a lasting one is reported by the driver's writes.
            with contextlib.suppress(OSError, UserError):
                if not self._holds():
                    return
                self._file.refresh(self._version)
