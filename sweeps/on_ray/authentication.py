"""A token for the Ray that a run starts on this machine. Ray listens on all interfaces, and whoever may submit work to
it may run anything.

Ray reads mode and token from the environment, once in each process. By itself it would keep one token for all runs in
~/.ray/auth_token, readable by everybody who can read the home.
"""

import contextlib
import os
import secrets
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from sweeps.records.scratch import scratch_folder

FILE = "ray_auth_token"
_SETTINGS = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")


@contextlib.contextmanager
def own_token(folder: Path | None) -> Iterator[None]:
    """Makes a Ray that this process starts admit only processes with its token, for the time of the context.

    Each process has a new token. It lies in `folder`/ray_auth_token, mode 0600, until the context ends. Nothing is done
    if the user has set RAY_AUTH_MODE, RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH.

    Args:
        folder: on this machine; None for a temporary one.
    """
    if any(name in os.environ for name in _SETTINGS):
        yield
        return
    with contextlib.ExitStack() as stack:
        place = folder or stack.enter_context(scratch_folder())
        path = place.absolute() / FILE
        token = _token()
        stack.callback(_delete, path, token)
        _write_private(path, token)
        os.environ["RAY_AUTH_TOKEN_PATH"] = str(path)
        try:
            yield
        finally:
            for name in _SETTINGS:
                os.environ.pop(name, None)  # Ray sets the mode itself


@cache
def _token() -> str:
    return secrets.token_hex(32)


def _delete(path: Path, token: str) -> None:
    """Deletes one's own token; after a takeover the file holds the token of another driver's Ray."""
    with contextlib.suppress(OSError):  # a storage that has failed says so itself; without its Ray the token is void
        if path.read_text() == token:
            path.unlink()


def _write_private(path: Path, content: str) -> None:
    """Writes a file that nobody else can read at any time; replaces one that a killed run left."""
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(content)
