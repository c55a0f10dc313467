"""Findings: the results of the checks of `sweeps.doctor`."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from sweeps.errors import UserError
from sweeps.redact import redact

PROJECT = "vae-sweeps"
"""The name under which this project is installed."""


@dataclass(frozen=True)
class Finding:
    """The result of one check. level: ok, note (matters only if it is needed) or problem; advice: what to do."""

    check: str
    level: Literal["ok", "note", "problem"]
    found: str
    advice: str = ""

    def __str__(self) -> str:
        text = f"{self.level:8}{self.check}: {self.found}" + (f"; {self.advice}" if self.advice else "")
        return redact(" ".join(text.split()) if "\n" in text else text)


def ok(check: str, found: str) -> Finding:
    """A finding that nothing is wrong."""
    return Finding(check, "ok", found)


def problem(check: str, found: str, advice: str) -> Finding:
    """A finding that keeps sweeps from running."""
    return Finding(check, "problem", found, advice)


def safely(check: str, run: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """The findings of a check. An exception in it becomes a problem."""
    try:
        yield from run()
    except Exception as error:  # a broken installation, server or cluster may raise anything
        kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
        yield problem(check, f"{kind}{error}", "")
