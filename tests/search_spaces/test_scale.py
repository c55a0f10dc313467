import dataclasses

import pytest

from search_spaces import get_sweep, list_sweeps
from search_spaces.derived import reduced, reduced_study, reseeded, searched
from search_spaces.scale import DAY, SMOKE, Scale, due_in_time
from search_spaces.space import Axis, Study, Sweep, Uniform, Variants, Winner
from sweeps.planning.plan import Overrides, Plan

FULL = {
    "data": {"name": "mnist", "pixels": "unit"},
    "guide": {"annealing_rate": 0.01, "freeze_epoch": 80},
    "epochs": 200,
    "diagnostics": {"gradient_variance": (10, 100, 200)},
}


def test_what_counts_epochs_shrinks_with_them():
    small = Scale("tenth", epochs=20, seeds=1, images=64, values=2, draws=3).config(FULL)
    assert small["epochs"] == 20
    assert small["data"] == {"name": "mnist", "pixels": "unit", "limit": 64}
    assert small["guide"] == {"annealing_rate": pytest.approx(0.1), "freeze_epoch": 8}
    assert small["diagnostics"] == {"gradient_variance": (1, 10, 20), "draws": 3}
    assert FULL["epochs"] == 200, "nothing is changed in place"


def test_what_is_small_enough_stays():
    assert Scale("large", epochs=1000, seeds=1, images=None, values=9).config(FULL) == FULL


def test_no_guide_is_no_guide():
    assert SMOKE.config(FULL | {"guide": None})["guide"] is None


@pytest.mark.parametrize(
    ("values", "count", "kept"),
    [
        ((1, 2, 3, 4, 5), 2, (1, 5)),
        ((1, 2, 3, 4, 5), 3, (1, 3, 5)),
        ((1, 2), 5, (1, 2)),
        ((1, 2, 3), 1, (1,)),
        (("a", "b", "c"), 2, ("a", "b", "c")),
    ],
)
def test_axes_of_numbers_keep_their_ends(values, count, kept):
    study = Study(name="s", title="", source="", base=FULL, grid=(Axis("x", values),), seeds=(0, 1, 2, 3))
    small = reduced_study(study, Scale("s", epochs=1, seeds=2, images=None, values=count))
    assert small.grid == (Axis("x", kept),)
    assert small.seeds == (0, 1)
    assert study.scale is None
    assert small.scale is not None


def test_a_reduced_sweep_has_a_name_and_a_title_that_say_so():
    sweep = reduced(get_sweep("quickstart"), SMOKE)
    assert sweep.name == "quickstart-smoke"
    assert "at most 2 epochs, 1 seed" in sweep.title
    assert all(study.scale is SMOKE for study in sweep.studies)
    assert "at most 20 epochs, at most 3 seeds, at most 5 values" in DAY.statement


GRID = Study(
    name="grid",
    title="",
    source="",
    base=FULL,
    grid=(
        Variants("method", {"a": {}, "b": {}}),
        Axis("optim.lr", (1e-4, 1e-2)),
        Axis("guide.freeze_epoch", (10, 20), when=("method", ("b",))),
        Axis("likelihood.variance", (0.05, 0.1)),
    ),
    seeds=(0, 1),
    compare=("method",),
)


def only(sweep):
    (study,) = sweep.studies
    return study


def test_axes_of_numbers_become_ranges_and_rows_stay():
    study = only(searched(Sweep("s", "", (GRID,)), "tpe", None, 3))
    assert study.grid == GRID.grid[:1]
    assert study.search.space == (
        Uniform("optim.lr", 1e-4, 1e-2, log=True),
        Uniform("guide.freeze_epoch", 10, 20, whole=True, when=("method", ("b",))),
        Uniform("likelihood.variance", 0.05, 0.1),
    )
    assert study.search.sampler == "tpe"
    assert study.search.halving == 3


@pytest.mark.parametrize(
    ("budget", "seeds", "suggestions"), [(None, 1, 12), (40, 2, 10), (35, 1, 17), (1000, 2, 250), (2, 1, 1), (1, 1, 1)]
)
def test_the_budget_is_shared_by_rows_and_seeds(budget, seeds, suggestions):
    """There are 2 * 2 cells without freeze epochs and 2 * 2 * 2 with them, two rows, and two seeds."""
    study = only(searched(Sweep("s", "", (GRID,)), "random", budget, 1))
    assert len(study.seeds) == seeds
    assert study.search.members == suggestions


def test_a_suggestion_gets_the_seeds_that_are_asked_for():
    study = only(searched(reseeded(Sweep("s", "", (GRID,)), 5), "random", 40, 1, all_seeds=True))
    assert study.seeds == (0, 1, 2, 3, 4)
    assert study.search.members == 40 // (2 * 5)


def test_an_axis_that_rows_depend_on_stays_a_row():
    """Without the first, the rows of the second would all be left out, and the base would lack the latents."""
    grid = (Variants("latents", {"x": {}, "y": {}}), Variants("method", {"b": {}}, when=("latents", ("x",))))
    study = dataclasses.replace(GRID, grid=(*grid, Axis("optim.lr", (1e-4, 1e-2))))
    study = only(searched(Sweep("s", "", (study,)), "tpe", None, 3))
    assert study.grid == grid
    assert [dimension.key for dimension in study.search.space] == ["optim.lr"]


def test_by_what_others_find_their_winner_stays_a_row():
    later = dataclasses.replace(GRID, name="later", compare=(), takes=(Winner("grid", ("optim.lr",), ("method",)),))
    _, study = searched(Sweep("s", "", (GRID, later)), "tpe", None, 3).studies
    assert study.grid == GRID.grid[:1]


def test_a_study_of_rows_alone_stays_as_it_is():
    study = dataclasses.replace(GRID, grid=GRID.grid[:1])
    assert only(searched(Sweep("s", "", (study,)), "tpe", None, 3)) is study


@pytest.mark.parametrize(
    ("epochs", "due"), [(200, (10, 100, 200)), (20, (1, 10, 20)), (4, (1, 2, 4)), (1, (1,)), (400, (10, 100, 200))]
)
def test_diagnostics_that_would_come_too_late_are_moved_as_by_a_scale(epochs, due):
    moved = due_in_time(FULL | {"epochs": epochs}, FULL["epochs"])
    assert moved["diagnostics"] == {"gradient_variance": due}
    assert moved["guide"] == FULL["guide"]


def test_diagnostics_that_still_come_in_time_stay():
    early = FULL | {"diagnostics": {"gradient_variance": (10, 20), "draws": 5}, "epochs": 20}
    assert due_in_time(early, 200) is early
    assert due_in_time(early | {"epochs": 4}, 20)["diagnostics"] == {"gradient_variance": (2, 4), "draws": 5}


@pytest.mark.parametrize("scale", [None, SMOKE.name, DAY.name])
@pytest.mark.parametrize("name", list_sweeps())
def test_every_configuration_of_every_sweep_is_valid_at_every_scale(name, scale):
    sweep = get_sweep(name)
    plan = Plan(sweep, Overrides(scale=scale, seeds=1))
    assert [study.name for study in plan.studies] == [study.name for study in sweep.studies]
    assert all(plan.size(study) > 0 for study in plan.studies)
