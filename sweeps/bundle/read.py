"""Loads the records of a bundle into a storage, after everything in the bundle was verified.

A bundle is not trusted. Only records are loaded, each checked by its own reader: Parquet and JSON, which execute
nothing. A hash tells damage, not forgery: whoever wrote the bundle may have written any results.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from sweeps.bundle import records
from sweeps.bundle.crate import METADATA, Digest, listed
from sweeps.errors import UserError, first_line
from sweeps.planning import saved
from sweeps.records.ledger import Row, UnchangedLedger, counting
from sweeps.records.lock import Lock
from sweeps.records.storage import Storage


@dataclass(frozen=True)
class Loaded:
    """What was loaded.

    sweep: the name of the sweep. members: the number of members in the bundle; new: how many the storage lacked.
    kept: whether the storage has another plan, which it keeps.
    """

    sweep: str
    members: int
    new: int
    kept: bool


@dataclass(frozen=True)
class _Contents:
    """The verified records of a bundle, by their path in the sweep's folder, and the rows that count."""

    sweep: str
    files: Mapping[str, bytes]
    rows: Mapping[str, Row]


def load_bundle(folder: Path, uri: str) -> Loaded:
    """Adds the results in a bundle to a storage. Nothing that the storage has is changed.

    Args:
        folder: the bundle.
        uri: the folder or URI of the storage.

    Raises:
        UserError: the bundle is damaged, incomplete or foreign, the storage has other results, or it cannot be
            written. Nothing was written then.
    """
    contents = _verified(folder)
    storage = Storage(uri, contents.sweep)
    if storage.exists():
        _refuse_conflicts(storage, contents)  # before anything is written, the lock included
    storage.prepare()
    with Lock(storage):
        there = _refuse_conflicts(storage, contents)
        missing = [path for path in contents.files if path not in there]
        # The plan comes last: without it the sweep counts as never run, and loading again goes on.
        for path in sorted(missing, key=lambda path: path == saved.PLAN):
            storage.write(path, contents.files[path])
    new = sum(key not in there.rows for key in contents.rows)
    return Loaded(contents.sweep, len(contents.rows), new, kept=saved.PLAN in there.different)


def _verified(folder: Path) -> _Contents:
    """The records of a bundle; raises UserError unless the whole bundle is as it was written."""
    where = f"bundle {str(folder)!r}"
    try:
        present = dict(_files(folder))
        if METADATA not in present:
            raise UserError(f"{where} has no {METADATA}; give a folder that `sweeps.export` has written")
        expected = listed(present.pop(METADATA).read_bytes())
        if outside := [path for path in expected if _leaves(path)]:
            raise UserError(f"{where}: {METADATA} lists {outside[0]!r}, which is outside of the bundle")
        if missing := sorted(expected.keys() - present.keys()):
            raise UserError(f"{where} is incomplete: it lacks {missing[0]}{_others(missing)}; copy it again")
        if extra := sorted(present.keys() - expected.keys()):
            raise UserError(f"{where} has {extra[0]!r}{_others(extra)}, which {METADATA} does not list; remove it")
        for path, digest in expected.items():
            if Digest.of(present[path]) != digest:
                raise UserError(f"{where} is damaged: {path} is not as {METADATA} says; copy it again")
        return _records(where, present)
    except OSError as error:
        raise UserError(f"{where} cannot be read: {error.strerror or error}") from None


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    """The files below a folder, by their path in it; raises UserError for links and everything that is no file."""
    with os.scandir(folder) as entries:
        for entry in entries:
            path = Path(entry.path)
            if entry.is_dir(follow_symlinks=False):
                yield from ((f"{entry.name}/{inner}", each) for inner, each in _files(path))
            elif entry.is_file(follow_symlinks=False):
                yield entry.name, path
            else:
                raise UserError(f"bundle has {str(path)!r}, which is a link or no file; bundles have only files")


def _leaves(path: str) -> bool:
    return path.startswith("/") or "\\" in path or ".." in PurePosixPath(path).parts


def _others(paths: list[str]) -> str:
    return f" and {len(paths) - 1} more files" if len(paths) > 1 else ""


def _records(where: str, present: Mapping[str, Path]) -> _Contents:
    found: dict[str, bytes] = {}
    rows: list[Row] = []
    sweeps: set[str] = set()
    for path, file in sorted(present.items()):
        top, _, rest = path.partition("/")
        if top != records.FOLDER:
            continue
        sweep, _, record = rest.partition("/")
        sweeps.add(sweep)
        found[record] = content = file.read_bytes()
        try:
            rows += records.check(record, content)
        except Exception as error:  # of a damaged or forged file; pyarrow can raise any exception
            raise UserError(f"{where}: {path} cannot be used ({first_line(error)})") from None
    if len(sweeps) != 1 or not records.is_sweep(min(sweeps)) or saved.PLAN not in found:
        raise UserError(f"{where} must have the records of one sweep, in {records.FOLDER}/NAME; it has {len(sweeps)}")
    return _Contents(min(sweeps), found, counting(rows))


@dataclass(frozen=True)
class _There:
    """The paths of a bundle's records that the storage has, those with other content, and the storage's rows."""

    same: frozenset[str]
    different: frozenset[str]
    rows: Mapping[str, Row]

    def __contains__(self, path: str) -> bool:
        return path in self.same or path in self.different


def _refuse_conflicts(storage: Storage, contents: _Contents) -> _There:
    """Compares a bundle with a storage; raises UserError if the storage has other results of a member."""
    rows = UnchangedLedger(storage, tell=False).read()
    there = f"the storage {storage.uri!r} has"
    for key, row in contents.rows.items():
        if key in rows and records.result(row) != records.result(rows[key]):
            raise UserError(f"{there} another result of member {key} of {storage.name!r}; load into another storage")
    same, different = set[str](), set[str]()
    for path, content in contents.files.items():
        try:
            equal = records.same(path, content, storage.read(path))
        except FileNotFoundError:
            continue
        except ValueError:  # the storage's file is damaged
            equal = False
        (same if equal else different).add(path)
    decided = [path for path in different if records.kind_of(path) in (records.CHOICES, records.SUGGESTIONS)]
    if decided:
        raise UserError(f"{there} another {min(decided)} of {storage.name!r}; load into another storage")
    return _There(frozenset(same), frozenset(different), rows)
