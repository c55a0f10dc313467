"""The ledger: which members are done, and what came of them. It is the truth; everything else can be rebuilt from it.

A row is one member's end, a file some rows: immutable Parquet, named by the hash of its content, so that writing it
twice is writing it once. Of several rows of one key the best counts (finished before stopped before failed, then the
latest), so a retry simply adds a row.
"""

import hashlib
import io
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sweeps.errors import UserError
from sweeps.storage import Storage

FORMAT = 1
_FOLDER = "ledger"
_RANK = {"finished": 2, "stopped": 1, "failed": 0}
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
log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Row:
    """The end of one member."""

    key: str
    status: str
    """finished, stopped or failed."""
    reason: str | None = None
    """Of a failure: diverged, out_of_memory, lost or error."""
    detail: str | None = None
    """Of an error: the traceback."""
    epochs: int
    wall_s: float
    ended: datetime
    config: dict[str, Any]
    """The complete configuration, nested."""
    metrics: dict[str, float]
    history: dict[str, list[float]]
    """Metrics by name, one number an epoch from the first."""

    @property
    def done(self) -> bool:
        """Whether it needs no more training, unless failures are retried."""
        return self.status in _RANK


def now() -> datetime:
    """The present, in UTC."""
    return datetime.now(UTC)


def _row(record: dict[str, Any]) -> Row:
    record["config"] = json.loads(record["config"])
    record["metrics"], record["history"] = dict(record["metrics"]), dict(record["history"])
    return Row(**record)


class Ledger:
    """The rows of one sweep.

    Raises:
        UserError: a file was written by a newer version of this program.
    """

    def __init__(self, storage: Storage):
        self._storage = storage

    def append(self, rows: Sequence[Row]) -> None:
        """Records rows, atomically: all or none."""
        table = pa.Table.from_pylist(
            [{**vars(row), "config": json.dumps(row.config, sort_keys=True)} for row in rows], schema=_SCHEMA
        )
        sink = io.BytesIO()
        pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
        content = sink.getvalue()
        self._storage.write(f"{_FOLDER}/{hashlib.sha256(content).hexdigest()[:32]}.parquet", content)

    def read(self) -> dict[str, Row]:
        """The row that counts, by key. Unreadable files are named in the log, set aside and ignored."""
        best: dict[str, Row] = {}
        for path in self._storage.list(_FOLDER, ".parquet"):
            for row in self._rows(path):
                old = best.get(row.key)
                if old is None or (_RANK[row.status], row.ended) > (_RANK[old.status], old.ended):
                    best[row.key] = row
        return best

    def _rows(self, path: str) -> list[Row]:
        try:
            file = pq.ParquetFile(io.BytesIO(self._storage.read(path)), page_checksum_verification=True)
            written = int((file.schema_arrow.metadata or {}).get(b"vae_sweeps_ledger", b"0"))
            if written > FORMAT:
                raise UserError(f"{path} has ledger format {written}, this program reads {FORMAT}: update the program")
            if not file.schema_arrow.equals(_SCHEMA):
                raise ValueError("it is no ledger file")
            return [_row(record) for record in file.read().to_pylist() if record["status"] in _RANK]
        except (pa.ArrowException, OSError, ValueError, TypeError) as error:
            aside = f"{_FOLDER}/set_aside/{path.rpartition('/')[2]}"
            log.warning("%s/%s is not readable (%s); set aside as %s", self._storage.full_uri, path, error, aside)
            self._storage.move(path, aside)
            return []

    # --- suggestions of searched studies -----------------------------------------------------------------------------

    def record_suggestions(self, study: str, batch: int, suggestions: Sequence[dict[str, Any]]) -> None:
        """Records the values that a search suggested, so that a resumed search goes on from the same ones."""
        content = json.dumps({"format": FORMAT, "suggestions": list(suggestions)}).encode()
        self._storage.write(f"suggestions/{study}/{batch:05d}.json", content)

    def suggestions(self, study: str) -> list[list[dict[str, Any]]]:
        """The batches of values suggested so far."""
        paths = self._storage.list(f"suggestions/{study}", ".json")
        return [json.loads(self._storage.read(path))["suggestions"] for path in paths]
