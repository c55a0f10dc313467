"""What the checks of `sweeps.doctor` find."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from sweeps.errors import UserError
from sweeps.redact import redact

PROJECT = "vae-sweeps"
"""The name that this project is installed by."""


@dataclass(frozen=True)
class Finding:
    """What one check found. level: ok, note (fine unless it is needed) or problem; advice: what to do about it."""

    check: str
    level: str
    found: str
    advice: str = ""

    def __str__(self) -> str:
        text = f"{self.level:8}{self.check}: {self.found}" + (f"; {self.advice}" if self.advice else "")
        return redact(" ".join(text.split()) if "\n" in text else text)


def ok(check: str, found: str) -> Finding:
    """A check that found nothing wrong."""
    return Finding(check, "ok", found)


def problem(check: str, found: str, advice: str) -> Finding:
    """A check that found something that keeps sweeps from running."""
    return Finding(check, "problem", found, advice)


def safely(check: str, run: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """The findings of a check; whatever it raises is a finding too."""
    try:
        yield from run()
    except Exception as error:  # whatever a broken installation, server or cluster may raise
        kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
        yield problem(check, f"{kind}{error}", "")
