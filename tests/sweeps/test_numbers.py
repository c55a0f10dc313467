"""Numbers formatted for people."""

import math

import pytest

from sweeps.analysis.numbers import interval, number, p_value


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (0.5819, 5.1e-05, "0.581900 ± 0.000051"),
        (0.5819, 5.1e-09, "0.581900 ± <0.000001"),
        (0.0001082, 5.3e-06, "0.000108 ± 0.000005"),
        (-25.26, 0.117, "-25.26 ± 0.12"),
        (4823.4, 120.0, "4823 ± 120"),
        (3.2e-7, 1.04e-8, "(3.20 ± 0.10)e-7"),
        (1.234e8, 2.1e6, "(1.234 ± 0.021)e8"),
        (0.0, 0.25, "0.00 ± 0.25"),
        (7.38, None, "7.380"),
        (7.38, math.nan, "7.380"),
        (7.38, 0.0, "7.380"),
        (math.nan, 0.1, "–"),
    ],
)
def test_number_and_error_share_one_notation(value, error, text):
    assert number(value, error) == text


def test_intervals_are_rounded_as_their_value():
    assert interval(-25.5, -25.0, -25.26, 0.117) == "-25.50 to -25.00"
    assert interval(3.0e-7, 3.4e-7, 3.2e-7, 1.04e-8) == "(3.00 to 3.40)e-7"
    assert interval(7.5, 7.5, 7.5, 0.0) == "7.500 to 7.500"


def test_tiny_p_values_are_bounded():
    assert (p_value(0.0004), p_value(0.0126)) == ("< 0.001", "0.013")
