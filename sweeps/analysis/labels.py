"""Texts and tags that tell configurations and members apart, the same in terminal, report and MLflow."""

from collections.abc import Mapping
from typing import Any

from sweeps.planning.plan import Member
from trainables.titles import title


def describe(labels: Mapping[str, Any]) -> str:
    """The labels of a configuration in one line: "ReinMax, learning rate 0.001". Texts stand without their field."""
    return ", ".join(
        value if isinstance(value, str) else f"{readable(path)} {_shown(value)}" for path, value in labels.items()
    )


def run_name(labels: Mapping[str, Any], seed: int | None = None) -> str:
    """The name of a member in a list, which shows the beginnings of names: the values that differ come first.

    "0.3 1.5 s0 (temperature_forward, temperature_backward)", or "0.001 s1 ReinMax (lr)". Without a seed, the name of a
    configuration; empty if it has no labels.
    """
    others = {path.rpartition(".")[2]: value for path, value in labels.items() if not isinstance(value, str)}
    texts = [value for value in labels.values() if isinstance(value, str)]
    told = [] if seed is None else [f"s{seed}"]
    shown = " ".join([*map(_shown, others.values()), *told, ", ".join(texts)]).strip()
    return f"{shown} ({', '.join(others)})" if others else shown


def member_tags(member: Member) -> dict[str, str]:
    """The tags of a member in MLflow: of its run, and of its model."""
    confirms = {"confirms": "true"} if member.confirms else {}
    return confirms | {
        "study": member.study,
        "key": member.key,
        "seed": str(member.config.seed),
        "estimator": member.config.estimator.name,
    }


def label(value: object) -> str:
    """The value of a label; empty for None.

    Floats that somebody wrote, with at most twelve significant digits, are whole, so that two values never look alike.
    Others, such as suggestions of a search, have four digits.
    """
    if isinstance(value, float):
        whole = f"{value:.12g}"
        return whole if float(whole) == value else f"{value:.4g}"
    return "" if value is None else str(value)


def _shown(value: object) -> str:
    return "none" if value is None else label(value)


def readable(path: str) -> str:
    """A dotted path or a variant's name as a heading: "temperature (forward)"."""
    return title(path)


def duration(seconds: float) -> str:
    """A time in its largest unit, rounded: "40 min"."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
