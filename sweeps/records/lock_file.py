"""The file of a sweep's lock. Only one process can create it; a process replaces it only if it knows its content.

The operating system creates a local file exclusively. On S3, Google and Azure, conditional writes of obstore make both
operations atomic. Otherwise (replacing a local file, HDFS, servers without conditional writes) a process writes the
file and reads it back after a pause: the last writer wins.
"""

import contextlib
import logging
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

from sweeps.errors import UserError
from sweeps.records.storage import Storage

if TYPE_CHECKING:
    from obstore.store import ObjectStore

FILE = "lock.json"
PAUSE_S = 2.0
"""Seconds between writing and reading back on an object store; longer than a small upload takes."""
RACE_S = 0.2
"""Seconds between writing and reading back on a local file system; needed only to replace the file."""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Version:
    """The file's content at one moment."""

    content: bytes
    mark: Any = None
    """The storage's own identifier of this version, for conditional writes."""


class LockFile(Protocol):
    """One file of a sweep's folder. Its methods raise UserError if the storage fails."""

    def create(self, content: bytes) -> Version | None:
        """Writes the file if there is none; returns None if there is one."""
        ...

    def read(self) -> Version | None:
        """Reads the file; returns None if there is none."""
        ...

    def replace(self, old: Version, content: bytes) -> Version | None:
        """Replaces a version; returns None if somebody else was faster."""
        ...

    def refresh(self, own: Version) -> None:
        """Renews the time of the file if it still is `own`; changes no other version."""
        ...

    def age_s(self) -> float:
        """Seconds since the file was written, by the storage's own clock, since the clocks of two hosts may differ."""
        ...

    def delete(self) -> None:
        """Deletes the file, if it is there."""
        ...


def lock_file(storage: Storage, pause_s: float | None = None) -> LockFile:
    """The lock file of a storage; uses conditional writes if possible. pause_s: replaces `PAUSE_S` and `RACE_S`."""
    store = None if storage.local else _conditional_store(storage)
    return PlainFile(storage, pause_s) if store is None else ConditionalFile(store, storage)


class PlainFile:
    """A lock file on any file system of pyarrow, without conditional writes."""

    def __init__(self, storage: Storage, pause_s: float | None = None):
        self._storage = storage
        self._pause_s = (RACE_S if storage.local else PAUSE_S) if pause_s is None else pause_s

    def create(self, content: bytes) -> Version | None:
        if not self._storage.local:
            return self._settled(content) if self.read() is None else None
        try:
            with (self._storage.local_path / FILE).open("xb") as file:
                file.write(content)
        except FileExistsError:
            return None
        except OSError as error:
            raise self._storage.unusable("write to", error) from None
        return Version(content)

    def read(self) -> Version | None:
        try:
            return Version(self._storage.read(FILE))
        except FileNotFoundError:
            return None

    def replace(self, old: Version, content: bytes) -> Version | None:
        return self._settled(content)

    def _settled(self, content: bytes) -> Version | None:
        self._storage.write(FILE, content)
        time.sleep(self._pause_s)
        return Version(content) if self.read() == Version(content) else None

    def refresh(self, own: Version) -> None:
        if self.read() != own:
            return
        if not self._storage.local:
            self._storage.write(FILE, own.content)
            return
        try:
            os.utime(self._storage.local_path / FILE)
        except OSError as error:
            raise self._storage.unusable("write to", error) from None

    def age_s(self) -> float:
        modified_s = self._storage.modified_s(FILE)
        probe = f".probe-{uuid4().hex}"
        self._storage.write(probe, b"now")
        now_s = self._storage.modified_s(probe)
        self._storage.delete(probe)
        return now_s - modified_s

    def delete(self) -> None:
        self._storage.delete(FILE)


class ConditionalFile:
    """A lock file on a server with conditional writes: only if there is no file, or only over a known version."""

    def __init__(self, store: "ObjectStore", storage: Storage):
        self._store, self._storage = store, storage

    def create(self, content: bytes) -> Version | None:
        return self._put(content, "create")

    def replace(self, old: Version, content: bytes) -> Version | None:
        return self._put(content, old.mark)

    def refresh(self, own: Version) -> None:
        self._put(own.content, own.mark)

    def _put(self, content: bytes, mode: Any) -> Version | None:
        from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError

        try:
            return Version(content, _mark(self._store.put(FILE, content, mode=mode)))
        except (AlreadyExistsError, PreconditionError, FileNotFoundError):
            there = self.read()  # this process's own content, if the write succeeded and only its answer was lost
            return there if there is not None and there.content == content else None
        except BaseError as error:
            raise self._storage.unusable("write to", error) from None

    def read(self) -> Version | None:
        from obstore.exceptions import BaseError

        try:
            answer = self._store.get(FILE)
            return Version(bytes(answer.bytes()), _mark(answer.meta))
        except FileNotFoundError:
            return None
        except BaseError as error:
            raise self._storage.unusable("read", error) from None

    def age_s(self) -> float:
        from obstore.exceptions import BaseError

        probe = f".probe-{uuid4().hex}"
        try:
            modified = self._store.head(FILE)["last_modified"]
            self._store.put(probe, b"now")
            now = self._store.head(probe)["last_modified"]
            self._store.delete(probe)
        except BaseError as error:
            raise self._storage.unusable("write to", error) from None
        return (now - modified).total_seconds()

    def delete(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._store.delete(FILE)


def _mark(answer: Any) -> dict[str, str]:
    return {name: answer[name] for name in ("e_tag", "version") if answer.get(name) is not None}


def _conditional_store(storage: Storage) -> "ObjectStore | None":
    """The sweep's folder as an obstore store; None if it does not support conditional writes."""
    from obstore.exceptions import BaseError  # imported here: only object stores need it

    try:
        store = _store(storage)
        probe = f".probe-{uuid4().hex}"
        store.put(probe, b"", mode="create")
        store.delete(probe)
    except (BaseError, UserError, ValueError, OSError) as error:
        log.debug("no conditional writes in %s: %s", storage.full_uri, error)
        return None
    return store


def _store(storage: Storage) -> "ObjectStore":
    from obstore.store import S3Store, from_url

    url = urlsplit(storage.full_uri)
    options = {name: values[-1] for name, values in parse_qs(url.query).items()}
    if url.scheme != "s3":
        return from_url(url._replace(query="").geturl())
    config: Any = {"region": options.get("region") or storage.region}
    if endpoint := options.get("endpoint_override"):
        config["endpoint"] = endpoint if "://" in endpoint else f"{options.get('scheme', 'https')}://{endpoint}"
    return S3Store(
        url.netloc,
        prefix=url.path.strip("/"),
        config=config,
        client_options={"allow_http": True},
        credential_provider=_aws_credentials(),
    )


def _aws_credentials() -> Any:
    """A provider of credentials from the AWS configuration files; None if obstore takes them from the environment."""
    if "AWS_ACCESS_KEY_ID" in os.environ:
        return None
    try:
        from obstore.auth.boto3 import Boto3CredentialProvider  # takes a while to import

        return Boto3CredentialProvider()
    except (ImportError, ValueError):
        return None
