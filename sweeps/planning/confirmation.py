"""Finalists: the configurations of a study that are trained again with seeds that chose nothing (`--confirm`).

The best of many configurations is partly lucky on the seeds that chose it. So once all members of a study have ended,
its finalists are chosen and recorded in the ledger, and fresh seeds judge them.
"""

import hashlib
import itertools
import json
import statistics
import warnings
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, cast

from search_spaces.space import Study
from sweeps.planning import ranking
from sweeps.planning.choices import Evidence, RecordedChoice
from sweeps.planning.plan import Member, Plan
from sweeps.planning.ranking import Results
from sweeps.planning.rows import CHOOSING, RIVALS, confirmed_rows, groups, matching, on_diagonal
from sweeps.records.ledger import Ledger, Row

LEVEL = 0.05
"""Two configurations are within the noise if the 95 % interval of their paired difference contains zero."""


@dataclass(frozen=True)
class Finalist:
    """A configuration to confirm. why: the first reason that applies, in words."""

    results: Results
    why: str

    @property
    def key(self) -> str:
        """The key of its first member, which names it in the ledger."""
        return self.results.members[0].key


def finalists(study: Study, found: Sequence[Results]) -> list[Finalist]:
    """The configurations of a study that fresh seeds judge; empty if none has finished.

    They are the best of each row (`confirmed_rows`), the best with equal values in the heatmap, both sides of each
    claim, and at most two rivals of a row's best that are within the noise.
    """
    rows = [ranking.best_first(study, row) for row in groups(confirmed_rows(study), found)]
    chosen = [(best, "the best of its row") for row in rows for best in row[:1]]
    equal = [each for each in found if on_diagonal(study, each.labels)]
    chosen += [(best, "the best on the diagonal") for best in ranking.best_first(study, equal)[:1]]
    for claim in study.claims:
        for side in (claim.better, claim.worse):
            best = ranking.best_first(study, matching(found, side))[:1]
            chosen += [(each, f"a side of the claim: {claim.text}") for each in best]
    chosen += [
        (rival, "within the noise of the best of its row") for row in rows for rival in _rivals(study.metric, row)
    ]
    first: dict[int, Finalist] = {}
    for results, why in chosen:
        first.setdefault(id(results), Finalist(results, why))
    return list(first.values())


def _rivals(metric: str, row: Sequence[Results]) -> Iterator[Results]:
    """The next configurations of a ranked row that its seeds cannot tell from the first."""
    return itertools.islice((each for each in row[1:] if _within_noise(metric, row[0], each)), RIVALS)


def _within_noise(metric: str, first: Results, second: Results) -> bool:
    """Whether the 95 % interval of the paired difference contains zero; False with fewer than two common seeds."""
    # Takes 0.3 s to import, and only a run with --confirm needs it. It has no types.
    from scipy.stats import ttest_rel  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]

    values, others = ranking.by_seed(first.ended, metric), ranking.by_seed(second.ended, metric)
    seeds = sorted(values.keys() & others.keys())
    if len(seeds) < CHOOSING:
        return False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # equal differences: p is 0, or NaN if they are zero
        test = cast(Any, ttest_rel)([values[seed] for seed in seeds], [others[seed] for seed in seeds])
    return not test.pvalue < LEVEL


class Confirmation:
    """The finalists of one study, and their members with fresh seeds.

    Args:
        plan: a plan with `--confirm`.
        study: the study.
        ledger: the ledger with recorded choices.
    """

    def __init__(self, plan: Plan, study: Study, ledger: Ledger):
        self._plan, self._study, self._ledger = plan, study, ledger
        self.members: tuple[Member, ...] = ()
        """The members of the finalists; empty while they are not chosen."""
        self.decided = False
        """Whether the finalists are chosen."""
        self._waits_for: str | None = None
        """The key of a member that had not ended at the last check."""
        self._most = plan.most_confirming(study)  # kept: it looks at every cell, and is asked for after each cohort

    def left(self) -> int:
        """The largest number of members that are still to come."""
        return 0 if self.decided else self._most

    def recall(self, chosen_from: Sequence[Member]) -> None:
        """Takes the finalists from a recorded choice among exactly these members, if there is one."""
        recorded = self._ledger.choice(self._name(chosen_from))
        by_key = {member.key: member for member in chosen_from}
        if recorded is not None and recorded["values"].keys() <= by_key.keys():
            self._take([by_key[key] for key in recorded["values"]])

    def forget(self) -> None:
        """Chooses again, since there are more members to choose from."""
        self.members, self.decided = (), False

    def decide(self, chosen_from: Sequence[Member], rows: Mapping[str, Row], settled: Set[str]) -> tuple[Member, ...]:
        """Chooses and records the finalists, once all members to choose from have ended; returns their members.

        Args:
            chosen_from: all members of the study that choose.
            rows: rows of the ledger by key.
            settled: keys of the members that have ended and are not trained again.
        """
        if self.decided or (self._waits_for is not None and self._waits_for not in settled):
            return ()
        self._waits_for = next((member.key for member in reversed(chosen_from) if member.key not in settled), None)
        if self._waits_for is not None:
            return ()
        found = finalists(self._study, ranking.results(chosen_from, rows))
        if chosen_from:
            self._ledger.record_choice(self._name(chosen_from), _record(self._study, found))
        self._take([each.results.members[0] for each in found])
        return self.members

    def _take(self, finalists: Sequence[Member]) -> None:
        self.members, self.decided = self._plan.confirming(self._study, finalists), True

    def _name(self, chosen_from: Sequence[Member]) -> str:
        """The name in the ledger. Depends on the members and on what the study asks, and not on the number of seeds."""
        study = self._study
        asked = [study.metric, study.mode, confirmed_rows(study), study.heatmap]
        asked += [[repr(dict(claim.better)), repr(dict(claim.worse))] for claim in study.claims]
        content = json.dumps(["finalists", asked, sorted({member.key for member in chosen_from})])
        return f"{study.name}/{hashlib.sha256(content.encode()).hexdigest()[:16]}"


def _record(study: Study, found: Sequence[Finalist]) -> dict[str, Any]:
    """The finalists as the ledger keeps them: the reasons by key, and the evidence."""
    values = [list(ranking.by_seed(each.results.ended, study.metric).values()) for each in found]
    evidence = tuple(
        Evidence(
            labels=dict(each.results.labels),
            mean=statistics.fmean(of_seeds),
            n=len(of_seeds),
            planned=len(each.results.members),
            values={each.key: each.why},
        )
        for each, of_seeds in zip(found, values, strict=True)
    )
    choice = RecordedChoice(
        source=study.name,
        metric=study.metric,
        mode=study.mode,
        values={each.key: each.why for each in found},
        evidence=evidence,
    )
    return choice.model_dump(by_alias=True, mode="json")
