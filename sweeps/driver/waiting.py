"""Tells, while something takes long that prints nothing itself, that it still goes on."""

import contextlib
import threading
import time
from collections.abc import Iterator

from rich.console import Console

from sweeps.analysis.labels import duration

TELL_EVERY_S = 30.0


@contextlib.contextmanager
def waiting(console: Console, what: str, every_s: float = TELL_EVERY_S) -> Iterator[None]:
    """A context that prints a line now and then until it ends.

    Args:
        console: to print to.
        what: what goes on, as the beginning of a line.
        every_s: seconds between two lines.
    """
    began, ended = time.monotonic(), threading.Event()

    def tell() -> None:
        while not ended.wait(every_s):
            console.print(f"{what} ({duration(time.monotonic() - began)}) …", highlight=False)

    thread = threading.Thread(target=tell, name="waiting", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
