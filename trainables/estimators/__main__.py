"""Prints the table of estimators: python -m trainables.estimators > docs/estimators.md."""

from collections.abc import Mapping

from trainables.estimators import ESTIMATORS
from trainables.estimators.base import Estimator

HEADER = """\
# Estimators of the gradient of E[loss(z)]

Written by `python -m trainables.estimators > docs/estimators.md`. Each class says what it computes; the contract is in
`trainables/estimators/base.py`. Bias is the difference from the gradient of the expectation under the distribution of
the codes. L latents, K categories; SG is "Silent Gradients", DST "Decoupled Straight-Through Gumbel-Softmax".

| name | latents | bias | samples | cost | source |
|---|---|---|---|---|---|
"""


def table(estimators: Mapping[str, Estimator] = ESTIMATORS) -> str:
    """The estimators, all registered ones by default, as a Markdown page."""
    rows = (
        f"| `{name}` | {', '.join(sorted(e.families))} | {_bias(e)} | {e.samples} | {e.cost} | {e.source} |\n"
        for name, e in sorted(estimators.items())
    )
    return HEADER + "".join(rows)


def _bias(estimator: Estimator) -> str:
    return f"{estimator.bias}; {estimator.bias_except}" if estimator.bias_except else estimator.bias


if __name__ == "__main__":
    print(table(), end="")
