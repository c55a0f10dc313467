"""Studies as Optuna sees them, grids as well as searches: a trial for each configuration that has ended.

They are rebuilt from the rows of the ledger and are thrown away: nothing that Optuna does with them comes back.
"""

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState

from search_spaces.space import Dimension, Study, Uniform
from sweeps.analysis.cells import Cell
from sweeps.analysis.labels import label
from sweeps.planning.search import distribution, options, replayed

optuna.logging.set_verbosity(optuna.logging.WARNING)
ENOUGH = 10
"""Finished configurations that importances need."""
_BEST, _SHARE = 5, 0.1
"""The best configurations that importances look at: this share of all, but at least this number."""


def optuna_study(study: Study, found: Sequence[Cell], fields: Iterable[str] | None = None) -> optuna.Study:
    """An Optuna study in memory with a trial for each cell that has results.

    Args:
        study: the study; its metric is the trials' value.
        found: the cells.
        fields: the labels that become parameters; None for all.
    """
    rebuilt = optuna.create_study(direction="minimize" if study.mode == "min" else "maximize")
    rebuilt.add_trials(_trials(study, found, fields))
    return rebuilt


def in_memory(studies: Mapping[str, tuple[Study, Sequence[Cell]]]) -> InMemoryStorage:
    """Optuna studies, by name, in a storage that ends with this process."""
    storage = InMemoryStorage()
    for name, (study, found) in studies.items():
        direction = "minimize" if study.mode == "min" else "maximize"
        written = optuna.create_study(storage=storage, study_name=name, direction=direction)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            written.set_metric_names([study.metric])
        written.add_trials(_trials(study, found, None))
    return storage


def serve(studies: Mapping[str, tuple[Study, Sequence[Cell]]], port: int) -> None:
    """Shows studies, by name, in Optuna's dashboard on 127.0.0.1 until the process is interrupted.

    Raises:
        ImportError: the package optuna-dashboard is not installed.
    """
    from optuna_dashboard import run_server  # not everybody has it

    run_server(in_memory(studies), host="127.0.0.1", port=port)


def importances(study: Study, found: Sequence[Cell]) -> tuple[dict[str, float], int, int] | None:
    """How important each varied field is for being among the best configurations, by PED-ANOVA (Watanabe et al. 2023).

    Returns:
        The importances by label, with sum 1, the most important first; the number of best configurations, and the
        number of all that count. None with fewer than two varied fields or `ENOUGH` configurations, or if all are
        equally good.
    """
    rebuilt = optuna_study(study, found)
    trials = rebuilt.get_trials(states=[TrialState.COMPLETE], deepcopy=False)
    varied = [name for name in _names(found) if len({repr(trial.params.get(name)) for trial in trials}) > 1]
    always = [name for name in varied if all(name in trial.params for trial in trials)]
    if len(always) < 2 or len(trials) < ENOUGH:
        return None
    values = sorted(-trial.values[0] if study.mode == "max" else trial.values[0] for trial in trials)
    least = max(_BEST, math.ceil(_SHARE * len(trials)))
    best = sum(value <= values[least - 1] for value in values)  # more, if some are equal
    if best == len(trials):
        return None
    evaluator = PedAnovaImportanceEvaluator(target_quantile=least / len(trials))
    return get_param_importances(rebuilt, evaluator=evaluator, params=always), best, len(trials)


def _names(found: Iterable[Cell]) -> list[str]:
    return list(dict.fromkeys(name for cell in found for name in cell.labels))


def _trials(study: Study, found: Sequence[Cell], fields: Iterable[str] | None) -> list[FrozenTrial]:
    searched = {dimension.key: dimension for dimension in study.search.space} if study.search else {}
    names = _names(found) if fields is None else list(fields)
    distributions = {
        name: _of_dimension(searched[name])
        if name in searched
        else _of_values([cell.labels[name] for cell in found if name in cell.labels])
        for name in names
    }
    trials: list[FrozenTrial] = []
    for cell in found:
        if cell.ended:
            own = {name: distributions[name] for name in names if name in cell.labels}
            params = {name: _shown(one, cell.labels[name]) for name, one in own.items()}
            trials.append(replayed(study, params, own, [cell.ended.get(m.config.seed) for m in cell.members]))
    return trials


def _of_dimension(dimension: Dimension) -> BaseDistribution:
    if isinstance(dimension, Uniform):
        return distribution(dimension)
    return CategoricalDistribution([label(value) for value in options(dimension)])


def _of_values(values: Sequence[Any]) -> BaseDistribution:
    """The distribution of a grid's axis: a range of numbers, logarithmic if it spans a decade, or words."""
    if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return CategoricalDistribution(list(dict.fromkeys(map(label, values))))
    low, high = min(values), max(values)
    log = low > 0 and high >= 10 * low
    if all(isinstance(value, int) for value in values):
        return IntDistribution(low, high, log=log)
    return FloatDistribution(low, high, log=log)


def _shown(distribution: BaseDistribution, value: Any) -> Any:
    return label(value) if isinstance(distribution, CategoricalDistribution) else value
