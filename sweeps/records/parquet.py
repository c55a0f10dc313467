"""Parquet files as bytes: a storage writes and reads files whole."""

import io
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq


def encoded(table: pa.Table) -> bytes:
    """A table as a Parquet file."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")  # pyright: ignore[reportUnknownMemberType]
    return sink.getvalue()


def decoded(content: bytes, columns: Sequence[str] | None = None) -> pa.Table:
    """The table of a Parquet file, or some of its columns; raises ArrowException or OSError if it is damaged."""
    file = pq.ParquetFile(pa.BufferReader(content))
    names = None if columns is None else list(columns)
    return file.read(names, use_threads=False)  # pyright: ignore[reportUnknownMemberType]


def schema_of(content: bytes) -> pa.Schema:
    """The schema of a Parquet file; raises as `decoded`."""
    return pq.ParquetFile(pa.BufferReader(content)).schema_arrow
