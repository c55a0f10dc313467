"""Counts how often the report's verdicts are wrong, on synthetic sweeps of known truth.

    python benchmarks/verdicts.py --sweeps 4000

A synthetic sweep is a study like the papers' heatmaps: 9 x 9 pairs of temperatures. Its claim: the best pair off the
diagonal is better than the best pair on it. A result is the truth of its pair, plus noise of its seed that all pairs
share, plus noise of its own (standard deviation 1). Each sweep is judged twice: by the seeds that chose the two
pairs, and by as many fresh seeds that chose nothing. One pair against one pair: the claim names both, so nothing is
chosen.

Prints for each truth the share of sweeps with each verdict. Where the claim is false, "reproduced" is an error; the
rule allows 5 %. Takes about a minute on one core.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from measuring import begin, parser, write

from sweeps.analysis.statistics import Paired, mean
from sweeps.analysis.verdicts import Question, Verdict, judge


@dataclass(frozen=True)
class Truth:
    """A synthetic study.

    off, on: the pairs off the diagonal and on it, from which the claim takes the best ones; 1 and 1: nothing is chosen.
    gain: how much better than the others the first `better` pairs off the diagonal are; None for all.
    margin: the claim's margin for equivalence.
    seeds: the number of seeds that choose, and of fresh seeds.
    """

    name: str
    off: int = 72
    on: int = 9
    gain: float = 0.0
    better: int | None = None
    margin: float = 0.5
    seeds: int = 5


TRUTHS = (
    Truth("no difference, one pair against one pair", off=1, on=1),
    Truth("no difference, best of 72 against best of 9"),
    Truth("no difference, best of 72 against one pair", on=1),
    Truth("no difference, best of 72 against one pair, 10 seeds", on=1, seeds=10),
    Truth("one of 72 better by 2, against best of 9", gain=2.0, better=1),
    Truth("all 72 worse by 2, against best of 9", gain=-2.0),
    Truth("better by 2, one pair against one pair", off=1, on=1, gain=2.0),
    Truth("worse by 2, one pair against one pair", off=1, on=1, gain=-2.0),
    Truth("no difference, margin 2, one pair, 10 seeds", off=1, on=1, margin=2.0, seeds=10),
    Truth("better by the margin of 0.5, one pair, 40 seeds", off=1, on=1, gain=0.5, seeds=40),
    Truth("worse by the margin of 0.5, one pair, 40 seeds", off=1, on=1, gain=-0.5, seeds=40),
)


def judged(truth: Truth, generator: np.random.Generator) -> tuple[Verdict, Verdict]:
    """The verdict of one synthetic sweep by the seeds that chose, and by fresh ones."""
    means = np.zeros(truth.off + truth.on)
    means[: truth.off][: truth.better] = truth.gain
    shared = generator.normal(size=(1, 2 * truth.seeds))
    results = means[:, None] + shared + generator.normal(size=(len(means), 2 * truth.seeds))
    choosing, fresh = results[:, : truth.seeds], results[:, truth.seeds :]
    better, worse = np.argmax(choosing[: truth.off].mean(1)), truth.off + np.argmax(choosing[truth.off :].mean(1))
    return (
        verdict(choosing[better] - choosing[worse], truth.margin),
        verdict(fresh[better] - fresh[worse], truth.margin),
    )


def verdict(differences: np.ndarray, margin: float) -> Verdict:
    """The verdict on one claim, from its paired differences."""
    gains = tuple(differences.tolist())
    return judge([Question(Paired(mean(gains), gains), margin)])[0].verdict


def shares(truth: Truth, sweeps: int, seed: int) -> Iterator[tuple[str, Counter[Verdict]]]:
    """The verdicts of many synthetic sweeps: by the seeds that chose, then by fresh ones."""
    generator = np.random.default_rng(seed)
    pairs = [judged(truth, generator) for _ in range(sweeps)]
    for index, by in enumerate(("the seeds that chose", "fresh seeds")):
        yield by, Counter(pair[index] for pair in pairs)


def main() -> None:
    """Prints the shares of all truths."""
    arguments = parser(__doc__, trains=False)
    arguments.add_argument("--sweeps", type=int, default=4000, help="synthetic sweeps of each truth")
    arguments.add_argument("--seed", type=int, default=0)
    args = arguments.parse_args()
    _, report = begin(args, sweeps=args.sweeps)
    print(f"{'truth':56} {'judged by':22}" + "".join(f"{verdict:>14}" for verdict in Verdict))
    for truth in TRUTHS:
        for by, counts in shares(truth, args.sweeps, args.seed):
            if truth.off == truth.on == 1 and by != "fresh seeds":
                continue  # nothing was chosen: both are the same
            print(f"{truth.name:56} {by:22}" + "".join(f"{counts[v] / args.sweeps:14.1%}" for v in Verdict), flush=True)
            report["rows"].append({"truth": truth.name, "by": by} | {str(v): counts[v] for v in Verdict})
    write(args.json, report)


if __name__ == "__main__":
    main()
