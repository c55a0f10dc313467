"""Says why members failed, in the same words in terminal, status and report."""

from collections import Counter
from collections.abc import Iterable

from sweeps.records.ledger import Row
from sweeps.redact import redact

CAUSES = 3
"""Errors that a command prints; the report lists the members that failed."""
_LONGEST = 300
"""Characters of an error that are shown; the ledger has the whole traceback."""


def failure(row: Row) -> str:
    """Why and when a member failed: "diverged in epoch 3", "error in epoch 0 (KeyError: 'x')"."""
    text = f"{row.reason} in epoch {row.epochs}"
    return f"{text} ({_error(row)})" if _error(row) else text


def causes(rows: Iterable[Row]) -> list[str]:
    """The errors of failed members, the most frequent first, with the number of members that have each."""
    found = Counter(_error(row) for row in rows if row.status == "failed" and _error(row))
    return [f"{error} ({count} member{'s' * (count > 1)})" for error, count in found.most_common()]


def _error(row: Row) -> str:
    """The last line of a traceback, which names the error; empty for failures that say all by their reason."""
    lines = [line.strip() for line in (row.detail or "").splitlines() if line.strip()]
    return redact(lines[-1])[:_LONGEST] if row.reason == "error" and lines else ""
