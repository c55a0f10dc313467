"""Measures diagnostics of trained members, from a checkpoint or from results.

from trainables.diagnose import diagnose
diagnose([config], results, ["gradient_variance", "iw_bound"])
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch

from trainables.config import TrainingConfig
from trainables.diagnostics import measure
from trainables.training import CohortTraining, TrainingResult, resolve_device


def diagnose(
    configs: Sequence[TrainingConfig],
    saved: bytes | Sequence[TrainingResult],
    names: Iterable[str],
    *,
    draws: int | None = None,
    device: torch.device | str = "cpu",
    data_dir: str | Path = "data",
    dtype: torch.dtype = torch.float32,
) -> dict[str, np.ndarray]:
    """Measures diagnostics of saved members; the numbers are the same as in training after the saved epoch.

    Args:
        configs: the members, of one shape.
        saved: a checkpoint of these members, or their results with `state`, in the same order. Results have no running
            average of the loss; estimators that use it get the last validation loss instead.
        names, draws: as for `measure`.
        device, data_dir, dtype: as for `train`.

    Returns:
        Metrics by name, each [M] float64.

    Raises:
        UnknownName: there is no such diagnostic.
        ValueError: `saved` is not of these members, lacks their state, or a diagnostic does not apply to them.
        DataError: the data set is missing.
    """
    training = CohortTraining(configs, device=resolve_device(device), data_dir=Path(data_dir), dtype=dtype)
    if isinstance(saved, bytes):
        training.restore(saved)
    else:
        _take_up(training, saved)
    return measure(training.cohort, names, draws=draws)


def _take_up(training: CohortTraining, results: Sequence[TrainingResult]) -> None:
    if [result.key for result in results] != training.keys:
        raise ValueError("the results must be those of the given configurations, in the same order")
    if failed := [result.key for result in results if result.status != "finished"]:
        raise ValueError(f"only finished members can be diagnosed; these are not finished: {', '.join(failed)}")
    if any(not result.state for result in results):
        raise ValueError("these results have no state; use the results of `train`")
    losses = [-(result.metrics["elbo"] + result.metrics["kl"]) for result in results]
    training.cohort.members.load_models([r.state for r in results], epoch=results[0].epochs, running_loss=losses)
