"""Makes a token for the Ray that a run starts on this machine. Ray listens on all interfaces, and anyone who can submit
work to it can run any code.

Each process reads the mode and the token from the environment once. By default Ray would keep one token for all runs in
~/.ray/auth_token, which everybody can read who can read the home folder.
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
    """A context in which a Ray that this process starts accepts only clients with this process's token.

    Each process makes a new token. It is kept in `folder`/ray_auth_token, mode 0600, until the context ends. Does
    nothing if the user has set RAY_AUTH_MODE, RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH.

    Args:
        folder: a folder on this machine; None for a temporary one.
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
    """Deletes the file if it holds this token; after a takeover it holds the token of another driver's Ray."""
    with contextlib.suppress(OSError):  # a failed storage is reported elsewhere; the token is useless without its Ray
        if path.read_text() == token:
            path.unlink()


def _write_private(path: Path, content: str) -> None:
    """Writes a file that no other user can read at any time; replaces the file of a killed run."""
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(content)
