"""The precision that `auto` chooses, and the options for precision."""

import math
from typing import Any

import pytest
from scripted import BASE, GRID, SEARCH, SMALL

from sweeps.analysis.statistics import mean
from sweeps.planning import precision
from sweeps.planning.plan import Overrides, Plan
from sweeps.planning.precision import KIND, Change, Measurement, chosen, complete, kind_of, measured
from sweeps.run import run
from trainables.config import TrainingConfig

CONFIG = TrainingConfig.model_validate(BASE)


def measurement(low: float, high: float, **changes: Any) -> Measurement:
    return Measurement(kind=kind_of(CONFIG) | changes, change=Change(mean=(low + high) / 2, low=low, high=high))


PASSED, FAILED = measurement(-0.002, 0.002), measurement(-0.001, 0.0021)


@pytest.mark.parametrize(
    ("measurements", "expected"),
    [
        ([], "float32"),
        ([PASSED], "bf16"),
        ([FAILED], "float32"),
        ([measurement(-0.0021, 0.001)], "float32"),
        ([measurement(math.nan, math.nan)], "float32"),
        ([PASSED, FAILED], "float32"),
        *(([measurement(0.0, 0.0, **{path: "another"})], "float32") for path in kind_of(CONFIG)),
    ],
)
def test_auto_is_bf16_only_where_every_measurement_of_the_kind_passed(measurements, expected):
    assert chosen(CONFIG, measurements) == expected


def test_a_kind_has_every_field_that_tells_models_apart():
    assert kind_of(CONFIG) == {
        "data.name": "digits",
        "latent.family": "gaussian",
        "latent.size": 4,
        "encoder.name": "mlp",
        "decoder.name": "linear",
        "likelihood.name": "gaussian_fixed",
    }


def test_auto_is_resolved_before_there_is_a_key(monkeypatch):
    for found, expected in (([PASSED], "bf16"), ([FAILED], "float32")):
        monkeypatch.setattr(precision, "measured", lambda found=found: found)
        config = complete(BASE | {"precision": "auto"})
        assert config == complete(BASE | {"precision": expected})
        assert config.key() == TrainingConfig.model_validate(BASE | {"precision": expected}).key()


@pytest.mark.parametrize("asked", ["auto", "float32", "bf16"])
def test_a_plan_sets_the_precision_of_every_member(asked, monkeypatch):
    monkeypatch.setattr(precision, "measured", lambda: [PASSED])
    plan = Plan(SMALL, Overrides(values=(("precision", asked),)))
    suggested = plan.members_of(plan.cells(SEARCH)[0], {"optim.lr": 1e-3})
    assert {member.config.precision for member in (*plan.members[GRID.name], *suggested)} == {
        "float32" if asked == "float32" else "bf16"
    }
    other = Plan(SMALL, Overrides(values=(("precision", asked), ("data.name", "digits28"))))
    assert {member.config.precision for member in other.members[GRID.name]} == {
        "bf16" if asked == "bf16" else "float32"
    }


def test_what_comes_with_the_program_is_what_was_measured():
    rows = [one.model_dump() for one in measured()]
    assert rows
    for row in rows:
        assert row["kind"].keys() >= set(KIND) - {"latent"} | {"latent.family", "latent.size"}
        change = mean(row["differences"])
        assert change.n == row["seeds"] >= 5
        assert row["change"] == pytest.approx({"mean": change.value, "low": change.low, "high": change.high})


def test_a_plan_is_printed_for_every_precision(command):
    for asked in precision.PRECISIONS:
        code, out, _ = command(run, "quickstart", "--plan", "--precision", asked)
        assert code == 0
        assert "estimators" in out
