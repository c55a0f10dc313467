"""Formats numbers for people, rounded to the digits that their standard error supports."""

import math

_FINEST = 6
"""The largest number of decimals."""


def number(value: float, error: float | None = None) -> str:
    """A number with its standard error, to two digits of the error; without an error, to about four digits.

    Very large and very small numbers share one power of ten with their error: (3.20 ± 0.10)e-7.
    """
    if not math.isfinite(value):
        return "–"
    if error is None or not math.isfinite(error) or error == 0:
        return f"{value:.3f}" if 0.1 <= abs(value) < 1000 else f"{value:.4g}"
    power, decimals = _scale(value, error)
    scaled = round(error / 10**power, decimals)
    shown = f"{scaled:.{decimals}f}" if scaled else f"<{10**-decimals:.{decimals}f}"
    text = f"{value / 10**power:.{decimals}f} ± {shown}"
    return f"({text})e{power}" if power else text


def interval(low: float, high: float, value: float, error: float) -> str:
    """The ends of an interval around a value, rounded like the value."""
    if error == 0:
        return f"{number(low)} to {number(high)}"
    power, decimals = _scale(value, error)
    text = f"{low / 10**power:.{decimals}f} to {high / 10**power:.{decimals}f}"
    return f"({text})e{power}" if power else text


def signed(value: float) -> str:
    """A difference, with its sign."""
    return f"{value:+.3f}" if 0.1 <= abs(value) < 1000 else f"{value:+.4g}"


def p_value(p: float) -> str:
    """A p value."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _scale(value: float, error: float) -> tuple[int, int]:
    """The common power of ten (0 for none) and the number of decimals."""
    magnitude = math.floor(math.log10(max(abs(value), error)))
    power = 0 if -4 <= magnitude < 6 else magnitude
    return power, min(_FINEST, max(0, 1 - math.floor(math.log10(error)) + power))
