"""Search: Optuna suggests a batch of members at a time and hears what became of each.

The Optuna study is a view of the ledger: it is rebuilt by replaying suggestions and results, with a sampler seeded by
the study's seed and the number of suggestions made, so that a search that was interrupted makes the suggestions that an
uninterrupted one would have made.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState, create_trial

from search_spaces.space import Choice, Study, Uniform
from sweeps.ledger import Ledger, Row
from sweeps.plan import Member, Plan

optuna.logging.set_verbosity(optuna.logging.WARNING)


class StudySearch:
    """The batches of one searched study.

    Suggestions are recorded in the ledger before they are trained: a resumed search goes on from the same ones.
    """

    def __init__(self, plan: Plan, study: Study, ledger: Ledger):
        assert study.search is not None
        self._plan, self._study, self._search, self._ledger = plan, study, study.search, ledger
        self._batches = ledger.suggestions(study.name)

    def members(self) -> tuple[Member, ...]:
        """The members of all suggestions made so far."""
        return tuple(
            {
                m.key: m
                for batch in self._batches
                for values in batch
                for m in self._plan.suggested(self._study, values)
            }.values()
        )

    def suggestions_left(self) -> int:
        """How many suggestions of the budget have not been made."""
        return max(0, self._search.members - sum(len(batch) for batch in self._batches))

    def next_batch(self, rows: Mapping[str, Row]) -> tuple[Member, ...]:
        """New members to train, once those of all batches before have ended; empty when the budget is spent.

        Args:
            rows: the ledger, holding a row for every member suggested so far.
        """
        count = min(self._search.batch, self.suggestions_left())
        if not count:
            return ()
        study = self._replayed(rows)
        suggestions = []
        for _ in range(count):
            trial = study.ask(_distributions(self._search.space))
            suggestions.append(trial.params)
        self._ledger.record_suggestions(self._study.name, len(self._batches), suggestions)
        self._batches.append(suggestions)
        return tuple(m for values in suggestions for m in self._plan.suggested(self._study, values))

    def _replayed(self, rows: Mapping[str, Row]) -> optuna.Study:
        made = [values for batch in self._batches for values in batch]
        seed = self._search.seed * 1_000_003 + len(made)
        if self._search.sampler == "tpe":
            sampler: optuna.samplers.BaseSampler = optuna.samplers.TPESampler(
                seed=seed, multivariate=True, constant_liar=True, n_startup_trials=self._search.batch
            )
        else:
            sampler = optuna.samplers.RandomSampler(seed=seed)
        direction = "minimize" if self._study.mode == "min" else "maximize"
        study = optuna.create_study(sampler=sampler, direction=direction)
        for values in made:
            value = self._value(values, rows)
            study.add_trial(
                create_trial(
                    state=TrialState.FAIL if value is None else TrialState.COMPLETE,
                    params=dict(values),
                    distributions=_distributions(self._search.space),
                    value=value,
                )
            )
        return study

    def _value(self, values: Mapping[str, Any], rows: Mapping[str, Row]) -> float | None:
        """The mean of the metric over seeds; None where a seed failed."""
        found = [
            rows[member.key].metrics.get(self._study.metric) for member in self._plan.suggested(self._study, values)
        ]
        numbers = [value for value in found if value is not None and math.isfinite(value)]
        return sum(numbers) / len(numbers) if numbers and len(numbers) == len(found) else None


def _distributions(space: Sequence[Uniform | Choice]) -> dict[str, BaseDistribution]:
    return {
        dimension.path: CategoricalDistribution(dimension.values)
        if isinstance(dimension, Choice)
        else FloatDistribution(dimension.low, dimension.high, log=dimension.log)
        for dimension in space
    }
