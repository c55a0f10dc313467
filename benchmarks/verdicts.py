"""Counts how often the report's verdicts are wrong, on synthetic sweeps of known truth.

    python benchmarks/verdicts.py --sweeps 4000

A synthetic sweep is a study like the papers' heatmaps: 9 x 9 pairs of temperatures. Its claim: the best pair off the
diagonal is better than the best pair on it. A result is the truth of its pair, plus noise of its seed that all pairs
share, plus noise of its own (standard deviation 1). Each sweep is judged twice by the program's own functions, from
its finalists to its verdict: by the seeds that chose the two pairs, as without `--confirm`, and by as many fresh seeds,
as with it. One pair against one pair: the claim names both, so nothing is chosen.

Prints for each truth the share of sweeps with each verdict. Where the claim is false, "reproduced" is an error; the
rule allows 5 %. Takes some minutes on one core.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property

import numpy as np
from measuring import begin, parser, write

from search_spaces.space import Axis, Claim, Study, Sweep, Variants
from sweeps.analysis import claims
from sweeps.analysis.cells import cells
from sweeps.analysis.verdicts import Verdict
from sweeps.planning import ranking
from sweeps.planning.confirmation import finalists
from sweeps.planning.plan import Member, Overrides, Plan
from sweeps.records.ledger import Row

_BASE = {
    "latent": {"family": "gaussian", "size": 4},
    "encoder": {"name": "mlp", "hidden": (8,)},
    "decoder": {"name": "linear"},
    "likelihood": {"name": "gaussian_fixed"},
    "estimator": {"name": "silent"},
    "optim": {"name": "adam"},
    "epochs": 1,
    "batch_size": 100,
}
_ENDED = datetime(2026, 1, 1, tzinfo=UTC)


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

    @cached_property
    def plan(self) -> Plan:
        """The plan of the study, confirmed on as many fresh seeds as choose."""
        pairs = tuple(1e-4 * (1 + index) for index in range(self.off + self.on))
        off, on = pairs[: self.off], pairs[self.off :]
        study = Study(
            name="map",
            title="A synthetic study",
            source="nowhere",
            base=_BASE,
            grid=(
                Variants("diagonal", {"off": {}, "on": {}}),
                Axis("optim.lr", off, ("diagonal", ("off",))),
                Axis("likelihood.variance", on, ("diagonal", ("on",))),
            ),
            seeds=tuple(range(self.seeds)),
            mode="max",
            claims=(Claim("off is better than on", {"diagonal": "off"}, {"diagonal": "on"}, margin=self.margin),),
        )
        return Plan(Sweep("synthetic", "", (study,)), Overrides(confirm=self.seeds))


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
    plan = truth.plan
    (study,) = plan.studies
    members = plan.members[study.name]
    means = np.zeros(truth.off + truth.on)
    means[: truth.off][: truth.better] = truth.gain
    shared = generator.normal(size=(1, 2 * truth.seeds))
    results = means[:, None] + shared + generator.normal(size=(len(means), 2 * truth.seeds))
    place = {labels: index for index, labels in enumerate(dict.fromkeys(repr(member.labels) for member in members))}
    column = {seed: index for index, seed in enumerate((*study.seeds, *plan.confirming_seeds))}

    def rows_of(trained: tuple[Member, ...]) -> dict[str, Row]:
        return {m.key: _row(m, results[place[repr(m.labels)], column[m.config.seed]]) for m in trained}

    rows = rows_of(members)
    chosen = finalists(study, ranking.results(members, rows))
    fresh = plan.confirming(study, [each.results.members[0] for each in chosen])
    return verdict(study, members, rows), verdict(study, (*members, *fresh), rows | rows_of(fresh))


def verdict(study: Study, members: tuple[Member, ...], rows: Mapping[str, Row]) -> Verdict:
    """The verdict on a study's only claim, as in the report."""
    (test,) = claims.tested(study, cells(study, members, rows))
    return test.verdict


def _row(member: Member, value: float) -> Row:
    return Row(
        key=member.key,
        status="finished",
        epochs=1,
        wall_s=0.0,
        ended=_ENDED,
        config={},
        metrics={"bits_per_dim": float(value)},
        history={},
    )


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
