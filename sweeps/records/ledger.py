"""The ledger: the members that have ended, and their results. Everything else can be rebuilt from it.

A row holds the end of one member; a file holds some rows. Files are immutable Parquet, named by the hash of their
content, so writing one twice has no effect. If a key has several rows, the best one counts (finished before stopped
before failed, then the latest), so a retry simply adds a row.
"""

import contextlib
import hashlib
import json
import logging
import math
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property, lru_cache
from typing import Any, TypeVar, get_args

import pyarrow as pa

from sweeps.errors import UserError, first_line
from sweeps.records import parquet
from sweeps.records.storage import Storage
from trainables.renamed import renamed
from trainables.reports import Reason, Status

FORMAT = 1
_REQUIRED = ("key", "status", "epochs", "wall_s", "ended", "metrics")
_ENDED = tuple(datetime(year, 1, 1, tzinfo=UTC) for year in (2000, 2200))
"""Every training ended between these times; others are too far for calculations with them."""
_FOLDER, _COHORTS, _CHOICES = "ledger", "cohorts", "choices"
_RANK: dict[Status, int] = {"finished": 2, "stopped": 1, "failed": 0}
_REASONS = {None, *get_args(Reason)}
_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("status", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("epochs", pa.int32()),
        ("wall_s", pa.float64()),
        ("ended", pa.timestamp("us", "UTC")),
        ("config", pa.string()),
        ("metrics", pa.map_(pa.string(), pa.float64())),
        ("history", pa.map_(pa.string(), pa.list_(pa.float64()))),
    ],
    metadata={"vae_sweeps_ledger": str(FORMAT)},
)
_LARGE = ("config", "history")
_READERS = 16
"""Number of files read at the same time: on an object store each read is a request that mostly waits."""
V = TypeVar("V")
log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Row:
    """The end of one member. A row that was read decodes `config` and `history` only when they are used."""

    key: str
    status: Status
    reason: Reason | None = None
    """Why the member failed."""
    detail: str | None = None
    """The traceback of an error."""
    epochs: int
    """Epochs trained."""
    wall_s: float
    ended: datetime
    config: Mapping[str, Any]
    """The complete configuration, nested."""
    metrics: Mapping[str, float]
    history: Mapping[str, Sequence[float]]
    """Metrics by name: one number for each epoch, beginning with the first."""


def now() -> datetime:
    """The current time in UTC."""
    return datetime.now(UTC)


def _name(content: bytes) -> str:
    return f"{hashlib.sha256(content).hexdigest()[:32]}.parquet"


@lru_cache(maxsize=64)
def _decoded(decode: Callable[[int], Mapping[str, Any]], index: int) -> Mapping[str, Any]:
    """Cached: callers usually read several entries."""
    return decode(index)


class _Late(Mapping[str, V]):
    """One row of a column, as a mapping that is decoded on access."""

    __slots__ = ("_decode", "_index")

    def __init__(self, decode: Callable[[int], Mapping[str, V]], index: int):
        self._decode, self._index = decode, index

    def __getitem__(self, name: str) -> V:
        return _decoded(self._decode, self._index)[name]

    def __iter__(self) -> Iterator[str]:
        return iter(_decoded(self._decode, self._index))

    def __len__(self) -> int:
        return len(_decoded(self._decode, self._index))


class _File:
    """A file of the ledger. Large columns stay encoded until they are used: a resumed sweep does not need the histories
    of ended members, which would take more memory than everything else.

    Raises:
        ValueError: the content is not a ledger file, or does not match the hash in its name.
        UserError: the format is newer than this program; or, when a row is used, its large columns are damaged.
    """

    def __init__(self, path: str, content: bytes):
        self._path, self._content = path, content
        schema = parquet.schema_of(content)
        written = int((schema.metadata or {}).get(b"vae_sweeps_ledger", b"0"))
        if written > FORMAT:
            raise UserError(
                f"{path} has ledger format {written}, but this program reads only {FORMAT}; update the program"
            )
        if not schema.equals(_SCHEMA):
            raise ValueError("it is not a ledger file")
        if path != f"{_FOLDER}/{_name(content)}":
            raise ValueError("its content does not match its name")

    @cached_property
    def _large(self) -> pa.Table:
        return parquet.decoded(self._content, _LARGE)

    def rows(self) -> Iterator[Row]:
        """The rows. Skips a row if only a newer program knows its status or reason.

        Raises:
            ValueError: a value is missing or out of range.
        """
        small = parquet.decoded(self._content, [name for name in _SCHEMA.names if name not in _LARGE])
        if missing := [name for name in _REQUIRED if small[name].null_count]:
            raise ValueError(f"a row has no {missing[0]!r}")
        for index, record in enumerate(small.to_pylist()):
            if record["status"] in _RANK and record["reason"] in _REASONS:
                record["metrics"] = renamed(dict(record["metrics"]))
                _check_numbers(**record)
                yield Row(**record, config=_Late(self._config, index), history=_Late(self._history, index))

    def _config(self, index: int) -> dict[str, Any]:
        with self._large_column("configuration"):
            return dict(json.loads(self._large["config"][index].as_py()))

    def _history(self, index: int) -> dict[str, list[float]]:
        with self._large_column("history"):
            history = renamed(dict(self._large["history"][index].as_py()))
            if len({len(values) for values in history.values()}) > 1 or any(None in each for each in history.values()):
                raise ValueError("its metrics have not the same epochs")
            return history

    @contextlib.contextmanager
    def _large_column(self, name: str) -> Generator[None, None, None]:
        try:
            yield
        except Exception as error:  # pyarrow and json can raise any exception for damaged bytes
            raise UserError(
                f"{self._path}: the {name} of a member is damaged ({first_line(error)}); "
                "delete the file, and the same command trains its members again"
            ) from None


def _check_numbers(*, epochs: int, wall_s: float, ended: datetime, metrics: Mapping[str, float], **_: Any) -> None:
    first, last = _ENDED
    if epochs < 0 or not 0 <= wall_s < math.inf or not first <= ended < last or None in metrics.values():
        raise ValueError("a row has numbers out of range")


def encoded(rows: Sequence[Row]) -> tuple[str, bytes]:
    """A file of the ledger with these rows: its path in the sweep's folder, and its content."""
    table = pa.Table.from_pylist(
        [
            {**vars(row), "config": json.dumps(dict(row.config), sort_keys=True), "history": dict(row.history)}
            for row in rows
        ],
        schema=_SCHEMA,
    )
    content = parquet.encoded(table)
    return f"{_FOLDER}/{_name(content)}", content


def rows_of(path: str, content: bytes) -> list[Row]:
    """The rows of a file of the ledger.

    Raises:
        Exception: the file is damaged; pyarrow can raise any exception for bytes that are no ledger file.
        UserError: the format is newer than this program.
    """
    return list(_File(path, content).rows())


def counting(rows: Iterable[Row]) -> dict[str, Row]:
    """The row that counts for each key."""
    best: dict[str, Row] = {}
    for row in rows:
        old = best.get(row.key)
        if old is None or (_RANK[row.status], row.ended) > (_RANK[old.status], old.ended):
            best[row.key] = row
    return best


class Ledger:
    """The rows of one sweep.

    Raises:
        UserError: a file was written by a newer version of this program.
    """

    def __init__(self, storage: Storage):
        self._storage = storage

    def append(self, rows: Sequence[Row]) -> list[Row]:
        """Records rows atomically: all or none. Returns them encoded, as `read` does, to save memory."""
        path, content = encoded(rows)
        self._storage.write(path, content)
        return rows_of(path, content)

    def read(self) -> dict[str, Row]:
        """The row that counts for each key. Unreadable files are named in the log, set aside and ignored."""
        return counting(row for _, rows in self.files() for row in rows)

    def files(self) -> Iterator[tuple[str, list[Row]]]:
        """The path and the rows of each file; none of a file that cannot be read."""
        paths = self._storage.list(_FOLDER, ".parquet")
        with ThreadPoolExecutor(_READERS) as readers:
            for path, content in zip(paths, readers.map(self._storage.read, paths), strict=True):
                yield path, self._rows(path, content)

    def _rows(self, path: str, content: bytes) -> list[Row]:
        try:
            return rows_of(path, content)
        except UserError:
            raise
        except Exception as error:  # pyarrow can raise any exception for bytes that are no ledger file
            self._set_aside(path, error)
            return []

    def _set_aside(self, path: str, error: Exception) -> None:
        folder, _, name = path.rpartition("/")
        aside = f"{folder}/set_aside/{name}"
        log.warning("%s/%s cannot be read (%s); set aside as %s", self._storage.full_uri, path, error, aside)
        self._storage.move(path, aside)

    def check(self) -> None:
        """Raises UserError if this process may no longer write here."""
        self._storage.check()

    def fence(self) -> None:
        """As `check`, but reads the lock file."""
        self._storage.fence()

    # --- cohorts in training -----------------------------------------------------------------------------------------

    def begin_cohort(self, key: str, members: Sequence[str]) -> None:
        """Records the keys of the members that are trained together, in the order of the cohort's checkpoint."""
        self._storage.write(f"{_COHORTS}/{key}.json", json.dumps(list(members)).encode())

    def end_cohort(self, key: str) -> None:
        """Forgets a cohort after its results are recorded."""
        self._storage.delete(f"{_COHORTS}/{key}.json")

    def begun_cohorts(self, needed: Callable[[str], bool]) -> list[list[str]]:
        """The members' keys of each cohort that has begun and not ended, for example because its driver was killed.

        Ends cohorts without needed members: their driver was killed after it recorded the last row.
        """
        cohorts: list[list[str]] = []
        for path in self._storage.list(_COHORTS, ".json"):
            # An unreadable file is ignored: its cohort only loses the epochs of its checkpoint.
            with contextlib.suppress(ValueError, TypeError, RecursionError):
                keys = [str(key) for key in json.loads(self._storage.read(path))]
                if any(map(needed, keys)):
                    cohorts.append(keys)
                else:
                    self.end_cohort(path.rpartition("/")[2].removesuffix(".json"))
        return cohorts

    # --- winners that studies take from -------------------------------------------------------------------------------

    def record_choice(self, name: str, choice: Mapping[str, Any]) -> None:
        """Records the values that a study takes from the winner of another study, and the evidence."""
        content = json.dumps({"format": FORMAT, **choice}, indent=2, default=str).encode()
        self._storage.write(f"{_CHOICES}/{name}.json", content)

    def choice(self, name: str) -> dict[str, Any] | None:
        """The recorded choice; None if there is none. A damaged one is set aside, and made again from the same rows."""
        path = f"{_CHOICES}/{name}.json"
        try:
            content = self._storage.read(path)
        except FileNotFoundError:
            return None
        try:
            choice = dict(json.loads(content))
            if not isinstance(choice["values"], dict):
                raise TypeError("its values are no table")
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            self._set_aside(path, error)
            return None
        return choice

    # --- suggestions of searched studies -----------------------------------------------------------------------------

    def record_suggestions(self, search: str, batch: int, suggestions: Sequence[dict[str, Any]]) -> None:
        """Records a batch of suggestions, so that a resumed search continues from them."""
        content = json.dumps({"format": FORMAT, "suggestions": list(suggestions)}).encode()
        self._storage.write(f"suggestions/{search}/{batch:05d}.json", content)

    def suggestions(self, search: str) -> list[list[dict[str, Any]]]:
        """The batches suggested so far.

        If a batch is damaged or missing, it and all later ones are set aside, since later ones depend on it. The search
        makes the same suggestions again, and finds their members in the ledger.
        """
        batches: list[list[dict[str, Any]]] = []
        for index, path in enumerate(paths := self._storage.list(f"suggestions/{search}", ".json")):
            content = self._storage.read(path)
            try:
                if path.rpartition("/")[2] != f"{index:05d}.json":
                    raise ValueError(f"batch {index} is missing")
                batches.append(list(map(dict, json.loads(content)["suggestions"])))
            except (ValueError, TypeError, KeyError, RecursionError) as error:
                for rest in paths[index:]:
                    self._set_aside(rest, error)
                break
        return batches


class UnchangedLedger(Ledger):
    """A ledger for commands that only read: it changes nothing in the storage, which may be read-only.

    Args:
        storage: the storage of the sweep.
        tell: whether the log names files that cannot be read.
    """

    def __init__(self, storage: Storage, *, tell: bool = True):
        super().__init__(storage)
        self.damaged: list[str] = []
        """Files that cannot be read, so far; they do not count, and the next run sets them aside."""
        self._tell = tell

    def _set_aside(self, path: str, error: Exception) -> None:
        self.damaged.append(path)
        if self._tell:
            where = f"{self._storage.full_uri}/{path}"
            log.warning("%s is not readable (%s); it does not count, and the next run sets it aside", where, error)

    def end_cohort(self, key: str) -> None:
        pass
