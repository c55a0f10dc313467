"""Search: Optuna suggests a batch of members at a time and hears what became of each.

The Optuna study is a view of the ledger: it is rebuilt by replaying suggestions and results, with a sampler seeded by
the study's seed and the number of suggestions made, so that a search that was interrupted makes the suggestions that an
uninterrupted one would have made.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState, create_trial

from search_spaces.space import Choice, Study, Uniform
from sweeps.errors import UserError
from sweeps.ledger import Ledger, Row
from sweeps.plan import Member, Plan

optuna.logging.set_verbosity(optuna.logging.WARNING)

Point = dict[str, Any]
"""What Optuna suggests, by dotted path: a number, or a choice's index, since choices may be lists or tables."""
_Suggestion = tuple[Point, tuple[Member, ...]]


class StudySearch:
    """The batches of one searched study.

    Suggestions are recorded in the ledger before they are trained: a resumed search goes on from the same ones.

    Raises:
        UserError: those that are recorded are not of this search's space.
    """

    def __init__(self, plan: Plan, study: Study, ledger: Ledger):
        assert study.search is not None
        self._plan, self._study, self._search, self._ledger = plan, study, study.search, ledger
        self._suggestions: list[_Suggestion] = []
        self._batches = 0
        for batch in self.batches():
            try:
                self._take(batch)
            except (KeyError, IndexError, TypeError, UserError) as error:
                raise UserError(
                    f"study {study.name!r}: recorded suggestions do not fit its search ({error}); "
                    f"delete suggestions/{self._folder} in the sweep's folder to search anew"
                ) from None

    def batches(self) -> list[list[Point]]:
        """What was suggested, as it is recorded."""
        return self._ledger.suggestions(self._folder)

    @property
    def _folder(self) -> str:
        """A changed space is another search, whose suggestions lie elsewhere: the old ones may not even fit in it."""
        content = json.dumps([self._search.sampler, self._search.seed, *map(repr, self._search.space)])
        return f"{self._study.name}/{hashlib.sha256(content.encode()).hexdigest()[:12]}"

    def members(self) -> tuple[Member, ...]:
        """The members of all suggestions made so far."""
        return tuple({m.key: m for _, members in self._suggestions for m in members}.values())

    def suggestions_left(self) -> int:
        """How many suggestions of the budget have not been made."""
        return max(0, self._search.members - len(self._suggestions))

    def next_batch(self, rows: Mapping[str, Row]) -> tuple[Member, ...]:
        """New members to train, once those of all batches before have ended; empty when the budget is spent.

        Args:
            rows: the ledger, holding a row for every member suggested so far.
        """
        count = min(self._search.batch, self.suggestions_left())
        if not count:
            return ()
        study = self._replayed(rows)
        batch = [study.ask(_distributions(self._search.space)).params for _ in range(count)]
        self._ledger.record_suggestions(self._folder, self._batches, batch)
        return self._take(batch)

    def _take(self, batch: Sequence[Point]) -> tuple[Member, ...]:
        suggestions = [(point, self._plan.suggested(self._study, self._values(point))) for point in batch]
        self._batches += 1
        self._suggestions += suggestions
        return tuple(m for _, members in suggestions for m in members)

    def _values(self, point: Point) -> dict[str, Any]:
        return {
            dimension.path: dimension.values[point[dimension.path]]
            if isinstance(dimension, Choice)
            else point[dimension.path]
            for dimension in self._search.space
        }

    def _replayed(self, rows: Mapping[str, Row]) -> optuna.Study:
        seed = self._search.seed * 1_000_003 + len(self._suggestions)
        if self._search.sampler == "tpe":
            sampler: optuna.samplers.BaseSampler = optuna.samplers.TPESampler(
                seed=seed, multivariate=True, constant_liar=True, n_startup_trials=self._search.batch
            )
        else:
            sampler = optuna.samplers.RandomSampler(seed=seed)
        direction = "minimize" if self._study.mode == "min" else "maximize"
        study = optuna.create_study(sampler=sampler, direction=direction)
        distributions = _distributions(self._search.space)
        outcomes = ((point, self._value(members, rows)) for point, members in self._suggestions)
        study.add_trials(
            create_trial(
                state=TrialState.FAIL if value is None else TrialState.COMPLETE,
                params=dict(point),
                distributions=distributions,
                value=value,
            )
            for point, value in outcomes
        )
        return study

    def _value(self, members: Sequence[Member], rows: Mapping[str, Row]) -> float | None:
        """The mean of the metric over seeds; None where a seed failed."""
        found = [rows[member.key].metrics.get(self._study.metric) for member in members]
        numbers = [value for value in found if value is not None and math.isfinite(value)]
        return sum(numbers) / len(numbers) if numbers and len(numbers) == len(found) else None


def _distributions(space: Sequence[Uniform | Choice]) -> dict[str, BaseDistribution]:
    return {
        dimension.path: CategoricalDistribution(range(len(dimension.values)))
        if isinstance(dimension, Choice)
        else FloatDistribution(dimension.low, dimension.high, log=dimension.log)
        for dimension in space
    }
