"""Search: Optuna suggests members in batches, and learns from the results of earlier batches.

The Optuna study is rebuilt from the ledger for each batch, by replaying suggestions and results. Its sampler is seeded
with the search's seed, the cell and the number of suggestions, so an interrupted search makes the same suggestions as
an uninterrupted one.
"""

import hashlib
import json
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, timedelta
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.trial import FrozenTrial, TrialState, create_trial

from search_spaces.space import Choice, Dimension, Study, Uniform, Variants, holds
from sweeps.errors import UserError
from sweeps.planning.plan import Member, Plan, PlannedCell
from sweeps.records.ledger import Ledger, Row

optuna.logging.set_verbosity(optuna.logging.WARNING)


Point = dict[str, Any]
"""A suggestion of Optuna by dotted path: a number, or the index of a choice, since choices may be lists or tables."""
_Suggestion = tuple[Point, tuple[Member, ...]]


class CellSearch:
    """The search in one cell of a study's grid.

    Suggestions are recorded in the ledger before they are trained, so that a resumed search continues from them.

    Args:
        plan: the plan that makes the members.
        cell: the cell; its study has a search.
        ledger: the ledger with the recorded suggestions.
        taken: fields by dotted path with the values of winners of other studies.

    Raises:
        UserError: recorded suggestions do not fit the search space.
    """

    def __init__(self, plan: Plan, cell: PlannedCell, ledger: Ledger, taken: Mapping[str, Any] = {}):
        assert cell.study.search is not None
        self._plan, self._cell, self._taken = plan, cell, taken
        self._study, self._search, self._ledger = cell.study, cell.study.search, ledger
        self._suggestions: list[_Suggestion] = []
        self._batches = 0
        for batch in self.batches():
            try:
                for point in batch:
                    create_trial(params=point, distributions=self._distributions(point), value=0)  # checks the ranges
                self._take(batch)
            except (KeyError, IndexError, TypeError, ValueError, UserError) as error:
                raise UserError(
                    f"study {self._study.name!r}: the recorded suggestions do not fit its search ({error}); to start "
                    f"the search again, delete suggestions/{self._folder} in the sweep's folder"
                ) from None

    def batches(self) -> list[list[Point]]:
        """The recorded suggestions, by batch."""
        return self._ledger.suggestions(self._folder)

    @property
    def _folder(self) -> str:
        """The folder of the suggestions; another one if the search changes, since old suggestions may not fit."""
        where = [*map(repr, self._search.space), self._cell.labels, dict(self._taken)]
        content = json.dumps([self._search.sampler, self._search.seed, *where], default=list)
        return f"{self._study.name}/{hashlib.sha256(content.encode()).hexdigest()[:12]}"

    def members(self) -> tuple[Member, ...]:
        """The members of the suggestions made so far, without suggestions beyond the budget of this plan."""
        within = self._suggestions[: self._search.members]
        return tuple({m.key: m for _, members in within for m in members}.values())

    def suggestions_left(self) -> int:
        """How many suggestions of the budget are left."""
        return max(0, self._search.members - len(self._suggestions))

    def next_batch(self, rows: Mapping[str, Row]) -> tuple[Member, ...]:
        """Makes and records the next batch; empty when the budget is spent. Call after all earlier batches have ended.

        Args:
            rows: rows of the ledger by key, with a row for every member suggested so far.
        """
        count = min(self._search.batch, self.suggestions_left())
        if not count:
            return ()
        study = self._replayed(rows)
        batch = [self._asked(study.ask()) for _ in range(count)]
        self._ledger.record_suggestions(self._folder, self._batches, batch)
        return self._take(batch)

    def _take(self, batch: Sequence[Point]) -> tuple[Member, ...]:
        suggestions = [(point, self._plan.members_of(self._cell, self._values(point), self._taken)) for point in batch]
        self._batches += 1
        self._suggestions += suggestions
        return tuple(m for _, members in suggestions for m in members)

    def _asked(self, trial: optuna.Trial) -> Point:
        """Asks Optuna for a suggestion. Skips dimensions that the values before them exclude (`when`)."""
        values = dict(self._cell.labels)
        for dimension in self._search.space:
            if holds(dimension.when, values):
                suggested = _suggest(trial, dimension)
                values[dimension.key] = _value(dimension, suggested)
        return trial.params

    def _values(self, point: Point) -> dict[str, Any]:
        return {
            dimension.key: _value(dimension, point[dimension.key])
            for dimension in self._search.space
            if dimension.when is None or dimension.key in point
        }

    def _replayed(self, rows: Mapping[str, Row]) -> optuna.Study:
        seed = (self._search.seed * 1_000_003 + self._cell.index) * 1_000_003 + len(self._suggestions)
        seed %= 2**32
        samplers: dict[str, Callable[[], optuna.samplers.BaseSampler]] = {
            "tpe": lambda: optuna.samplers.TPESampler(
                seed=seed, multivariate=True, group=True, constant_liar=True, n_startup_trials=self._search.batch
            ),
            "gp": lambda: optuna.samplers.GPSampler(
                seed=seed, n_startup_trials=self._search.batch, deterministic_objective=False
            ),
            "random": lambda: optuna.samplers.RandomSampler(seed=seed),
        }
        direction = "minimize" if self._study.mode == "min" else "maximize"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)  # for TPE's `group`, which conditions need
            sampler = samplers[self._search.sampler]()
        study = optuna.create_study(sampler=sampler, direction=direction)
        study.add_trials(self._trial(point, members, rows) for point, members in self._suggestions)
        return study

    def _trial(self, point: Point, members: Sequence[Member], rows: Mapping[str, Row]) -> FrozenTrial:
        return replayed(self._study, point, self._distributions(point), [rows[member.key] for member in members])

    def _distributions(self, point: Point) -> dict[str, BaseDistribution]:
        return {d.key: distribution(d) for d in self._search.space if d.key in point}


def replayed(
    study: Study, params: Mapping[str, Any], distributions: Mapping[str, BaseDistribution], rows: Sequence[Row | None]
) -> FrozenTrial:
    """An Optuna trial made from the rows of a suggestion.

    The value is the mean of the metric over seeds. The trial is failed if a seed has no finite metric, and pruned if a
    seed was stopped early. It lasts from the start of its first training to the end of its last; a start is the end
    minus `wall_s`, which is a member's share of the time of its cohort.

    Args:
        study: the study; its metric is the value.
        params: the suggestion, by dotted path.
        distributions: the distributions of `params`.
        rows: one row for each seed, None for a seed that has not ended; at least one has ended.
    """
    ended = [row for row in rows if row is not None]
    values = [row.metrics.get(study.metric, math.nan) if row else math.nan for row in rows]
    mean = sum(values) / len(values)
    failed, stopped = not math.isfinite(mean), any(row.status == "stopped" for row in ended)
    trial = create_trial(
        state=TrialState.FAIL if failed else TrialState.PRUNED if stopped else TrialState.COMPLETE,
        params=dict(params),
        distributions=dict(distributions),
        value=None if failed else mean,
        intermediate_values=None if failed else {min(row.epochs for row in ended): mean},
    )
    trial.datetime_start = min(row.ended.astimezone(UTC) - timedelta(seconds=row.wall_s) for row in ended)
    trial.datetime_complete = max(row.ended.astimezone(UTC) for row in ended)
    return trial


def distribution(dimension: Dimension) -> BaseDistribution:
    """The Optuna distribution of a dimension."""
    if isinstance(dimension, Uniform) and dimension.whole:
        return IntDistribution(int(dimension.low), int(dimension.high), log=dimension.log)
    if isinstance(dimension, Uniform):
        return FloatDistribution(dimension.low, dimension.high, log=dimension.log)
    return CategoricalDistribution(range(len(options(dimension))))


def options(dimension: Choice | Variants) -> Sequence[Any]:
    """The values of a choice, or the labels of variants."""
    return dimension.values if isinstance(dimension, Choice) else list(dimension.patches)


def _suggest(trial: optuna.Trial, dimension: Dimension) -> Any:
    if isinstance(dimension, Uniform) and dimension.whole:
        return trial.suggest_int(dimension.key, int(dimension.low), int(dimension.high), log=dimension.log)
    if isinstance(dimension, Uniform):
        return trial.suggest_float(dimension.key, dimension.low, dimension.high, log=dimension.log)
    return trial.suggest_categorical(dimension.key, range(len(options(dimension))))


def _value(dimension: Dimension, suggested: Any) -> Any:
    """The value or label of a suggestion; Optuna suggests an index for a choice or variants."""
    return suggested if isinstance(dimension, Uniform) else options(dimension)[suggested]
