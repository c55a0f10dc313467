"""A token for the Ray that a run starts on this machine: Ray listens on all interfaces, and who may submit work to it
may run anything.

Ray reads mode and token from the environment, once a process. Left to itself it would keep a token for everybody and
for ever in ~/.ray/auth_token, readable by all who can read the home.
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
    """For the time of the context, a Ray that this process starts on this machine admits only who has its token.

    The token is new with every process, and lies in `folder`/ray_auth_token, mode 0600, for as long as the context.
    Where the user has set any of RAY_AUTH_MODE, RAY_AUTH_TOKEN and RAY_AUTH_TOKEN_PATH, nothing is done.

    Args:
        folder: on this machine; None for a temporary one.
    """
    if any(name in os.environ for name in _SETTINGS):
        yield
        return
    with contextlib.ExitStack() as stack:
        place = folder or stack.enter_context(scratch_folder())
        path = place.absolute() / FILE
        stack.callback(_delete, path)
        _write_private(path, _token())
        os.environ["RAY_AUTH_TOKEN_PATH"] = str(path)
        try:
            yield
        finally:
            for name in _SETTINGS:
                os.environ.pop(name, None)  # Ray sets the mode itself


@cache
def _token() -> str:
    return secrets.token_hex(32)


def _delete(path: Path) -> None:
    with contextlib.suppress(OSError):  # a storage that has failed says so itself; without its Ray the token is void
        path.unlink(missing_ok=True)


def _write_private(path: Path, content: str) -> None:
    """Writes a file that was never readable by anybody else; one that a killed run left is replaced."""
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(content)
