"""Claims that relate two labels of a row, and logarithmic heatmaps."""

import math

import pytest
from scripted import BASE, row

from search_spaces.figures import Heatmap
from search_spaces.space import Axis, Claim, Relation, Study, Sweep
from sweeps.analysis import cells as tables
from sweeps.analysis import claims
from sweeps.analysis.verdicts import Verdict
from sweeps.planning.plan import Plan
from sweeps.report.heatmap import heatmap
from sweeps.report.panels import Panel

FORWARD, BACKWARD = "estimator.temperature_forward", "estimator.temperature_backward"
STUDY = Study(
    name="map",
    title="A map",
    source="nowhere",
    base=BASE
    | {"latent": {"family": "categorical", "size": 2, "categories": 3}, "estimator": {"name": "decoupled_st_gs"}},
    grid=(Axis(FORWARD, (0.5, 1.0)), Axis(BACKWARD, (0.5, 1.0))),
    seeds=(0, 1, 2, 3, 4),
    claims=(
        Claim("below", better={FORWARD: Relation("<", BACKWARD)}, worse={FORWARD: Relation("=", BACKWARD)}),
        Claim("above", better={FORWARD: Relation(">", BACKWARD)}, worse={FORWARD: Relation("=", BACKWARD)}),
    ),
)
BITS = {(0.5, 1.0): 1.0, (0.5, 0.5): 2.0, (1.0, 1.0): 3.0, (1.0, 0.5): 4.0}


def cells():
    members = Plan(Sweep("mapped", "Mapped", (STUDY,))).members["map"]
    noise = (0.0, 0.01, 0.03, 0.02, 0.04)

    def bits(member):
        e = member.config.estimator
        pair = (e.temperature_forward, e.temperature_backward)
        return BITS[pair] + (0.1 + 0.1 * BITS[pair]) * noise[member.config.seed]

    return tables.cells(STUDY, members, {m.key: row(m, metrics={"bits_per_dim": bits(m)}) for m in members})


def test_the_best_cells_that_stand_in_a_relation_are_compared():
    below, above = claims.tested(STUDY, cells())
    assert below.better.labels == {FORWARD: 0.5, BACKWARD: 1.0}
    assert above.better.labels == {FORWARD: 1.0, BACKWARD: 0.5}
    assert below.worse.labels == above.worse.labels == {FORWARD: 0.5, BACKWARD: 0.5}
    assert below.verdict is Verdict.REPRODUCED
    assert above.verdict is Verdict.CONTRADICTED


@pytest.mark.parametrize(("log", "best"), [(False, 1.004), (True, math.log(1.004))])
def test_a_logarithmic_heatmap_says_so_and_shows_logarithms(log, best):
    drawn = heatmap(Heatmap(FORWARD, BACKWARD, log=log), Panel(STUDY, cells(), "name"))
    assert ("natural logarithm" in drawn.caption) == log
    assert f"The best is {best:.4g}" in drawn.alt
