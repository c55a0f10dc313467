"""Describes a bundle in RO-Crate 1.1 (https://w3id.org/ro/crate/1.1): one JSON-LD file that lists all other files.

Each file is listed with its size and SHA-256, so the description is also what a bundle is verified against.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote, unquote

from pydantic import BaseModel, ValidationError
from pydantic import Field as Json

from sweeps.errors import UserError
from sweeps.findings import PROJECT
from sweeps.planning.sessions import Session

METADATA = "ro-crate-metadata.json"
_SPECIFICATION = "https://w3id.org/ro/crate/1.1"
_CONTEXT = [f"{_SPECIFICATION}/context", {"sha256": "https://schema.org/sha256"}]
_LICENSE = {
    "@id": "#license",
    "@type": "CreativeWork",
    "name": "No license chosen",
    "description": "The authors have not chosen a license for these results. Ask them before you use the results.",
}
_FORMATS = {
    ".csv": "text/csv",
    ".html": "text/html",
    ".json": "application/json",
    ".parquet": "application/vnd.apache.parquet",
    ".pdf": "application/pdf",
    ".png": "image/png",
    ".tex": "application/x-tex",
}
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Digest:
    """The size in bytes and the SHA-256 of a file."""

    size: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> "Digest":
        """Reads a file in pieces; raises OSError."""
        found = hashlib.sha256()
        with path.open("rb") as file:
            for piece in iter(partial(file.read, _CHUNK), b""):
                found.update(piece)
        return cls(path.stat().st_size, found.hexdigest())


@dataclass(frozen=True)
class About:
    """What a bundle is about.

    sources: the papers and tables that its studies repeat.
    sessions: the runs that made the results, with the command line of each; without anything private.
    """

    sweep: str
    title: str
    members: int
    finished: int
    sources: Sequence[str] = ()
    sessions: Sequence[tuple[Session, str]] = field(default=())


def described(about: About, files: Mapping[str, Digest], names: Mapping[str, str], published: date) -> bytes:
    """The content of ro-crate-metadata.json.

    Args:
        files: all other files of the bundle, by their path in it.
        names: what a file contains, by path; a folder's name ends with a slash and counts for all files in it.
        published: the date of the bundle.
    """
    sources = [
        {"@id": f"#source-{index}", "@type": "CreativeWork", "name": name} for index, name in enumerate(about.sources)
    ]
    software = _software(session for session, _ in about.sessions)
    actions = [_action(session, command, software) for session, command in about.sessions]
    title = f"Results of the sweep {about.sweep}: {about.title}"
    text = (
        f"{about.finished} of {about.members} trainings finished. Has the results, the history of every training, the "
        "configurations, the versions of the program, the tables and figures, and the ledger, from which "
        "`python -m sweeps.load` makes a storage that can be continued."
    )
    root = {
        "@id": "./",
        "@type": "Dataset",
        "name": title,
        "description": text,
        "datePublished": published.isoformat(),
        "license": _reference(_LICENSE),
        "hasPart": [{"@id": quote(path)} for path in files],
        "citation": list(map(_reference, sources)),
        "mentions": list(map(_reference, actions)),
    }
    own = {
        "@id": METADATA,
        "@type": "CreativeWork",
        "conformsTo": {"@id": _SPECIFICATION},
        "about": {"@id": "./"},
    }
    listed = [_file(path, digest, _name(path, names)) for path, digest in files.items()]
    graph = [own, root, *listed, _LICENSE, *sources, *software.values(), *actions]
    return json.dumps({"@context": _CONTEXT, "@graph": graph}, indent=1, ensure_ascii=False).encode()


def _reference(entity: Mapping[str, Any]) -> dict[str, Any]:
    return {"@id": entity["@id"]}


def _name(path: str, names: Mapping[str, str]) -> str:
    return names.get(path) or next((text for folder, text in names.items() if _within(path, folder)), path)


def _within(path: str, folder: str) -> bool:
    return folder.endswith("/") and path.startswith(folder)


def _file(path: str, digest: Digest, name: str) -> dict[str, Any]:
    return {
        "@id": quote(path),
        "@type": "File",
        "name": name,
        "encodingFormat": _FORMATS.get(PurePosixPath(path).suffix, "application/octet-stream"),
        "contentSize": str(digest.size),
        "sha256": digest.sha256,
    }


def _software(sessions: Iterable[Session]) -> dict[tuple[str, str], dict[str, Any]]:
    """The programs of all sessions, by name and version."""
    found = sorted({each for session in sessions for each in _versions(session.environment)})
    return {
        (name, version): {
            "@id": f"#{quote(name)}-{quote(version, safe='')}",
            "@type": "SoftwareApplication",
            "name": name,
            "softwareVersion": version,
        }
        for name, version in found
    }


def _versions(environment: Mapping[str, str]) -> list[tuple[str, str]]:
    """The programs of a session with their versions; this program's version is its commit."""
    found = [(name.removeprefix("version."), text) for name, text in environment.items() if name.startswith("version.")]
    found += [("Python", environment["python"])] if "python" in environment else []
    if commit := environment.get("mlflow.source.git.commit"):
        changed = " with local changes" if environment.get("git.dirty") == "true" else ""
        found.append((PROJECT, f"commit {commit}{changed}"))
    return found


def _action(session: Session, command: str, software: Mapping[tuple[str, str], Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "@id": f"#run-{session.started:%Y%m%dT%H%M%S%f}",
        "@type": "CreateAction",
        "name": command,
        "startTime": session.started.isoformat(),
        "instrument": [_reference(software[each]) for each in _versions(session.environment)],
        "result": {"@id": "results.parquet"},
    }


class _Entity(BaseModel):
    """An entity of the description, as far as it is read again; others have more or other properties."""

    id: str = Json(alias="@id")
    type: str | list[str] = Json(alias="@type")
    size: int | None = Json(None, alias="contentSize", ge=0)
    sha256: str | None = Json(None, pattern="^[0-9a-f]{64}$")


class _Crate(BaseModel):
    graph: list[_Entity] = Json(alias="@graph")


def listed(content: bytes) -> dict[str, Digest]:
    """The files that a description lists, by path.

    Raises:
        UserError: it is no description of a bundle.
    """
    try:
        graph = _Crate.model_validate_json(content).graph
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(f"{METADATA} does not describe a bundle ({where}: {first['msg']})") from None
    files: dict[str, Digest] = {}
    for entity in graph:
        if entity.type == "File":
            path = unquote(entity.id)
            if entity.size is None or entity.sha256 is None or path in files:
                raise UserError(f"{METADATA} must give each file once, with contentSize and sha256; see {path!r}")
            files[path] = Digest(entity.size, entity.sha256)
    return files
