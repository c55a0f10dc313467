"""Labels describe the trained configuration, for all changes by `--set`, `--scale` and `--search`."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from scripted import BASE, GRID, SEARCH, SMALL

from search_spaces import get_sweep, list_sweeps
from search_spaces.space import Choice, Search, Study, Sweep, Uniform, Variants, Winner, holds
from sweeps.analysis.labels import describe, label
from sweeps.errors import UserError
from sweeps.planning.plan import Member, Overrides, Plan
from sweeps.planning.search import CellSearch
from sweeps.planning.unfold import unfold

VALUES = {
    "optim.lr": (0.005, 1),
    "optim.name": ("radam", "adamw"),
    "latent.size": (6,),
    "likelihood.variance": (0.3,),
    "estimator.temperature": (0.7,),
    "estimator.temperature_forward": (0.9,),
    "estimator.temperature_backward": (4,),
    "estimator.temperature_backward_end": (2.5,),
    "estimator.name": ("reinmax", "silent", "decoupled_st_gs"),
    "guide.annealing_rate": (0.02,),
    "guide.lr_mu": (0.003,),
    "guide.freeze_epoch": (3,),
    "guide": (None, {"annealing_rate": 0.5}),
    "encoder.hidden": ([16],),
    "epochs": (600,),
    "data.name": ("digits28",),
    "precision": ("bf16", "auto"),
    "seed": (7,),
}
SETTINGS = [(path, value) for path, values in VALUES.items() for value in values]


def plain(value: Any) -> Any:
    return list(map(plain, value)) if isinstance(value, tuple | list) else value


def wrong(study: Study, member: Member) -> Iterator[str]:
    """The labels of a member that contradict its configuration. `study` is the original one, without changes."""
    flat = member.config.flat()
    named = (
        (axis.name, axis.patches[member.labels[axis.name]])
        for axis in (*study.grid, *(study.search.space if study.search else ()))
        if isinstance(axis, Variants) and axis.name in member.labels and holds(axis.when, member.labels)
    )
    names = set()
    for name, patch in named:
        names.add(name)
        says = {f"estimator.{field}": value for field, value in patch.get("estimator", {}).items()}
        fields = ["estimator.name"]
        if name in ("schedule", "temperatures"):
            fields += ["estimator.temperature_forward", "estimator.temperature_backward"]
        for field in fields:
            if field in says and says[field] != flat[field]:
                yield f"{study.name}: {name} {member.labels[name]} is trained with {field} {flat[field]}"
    for name, value in member.labels.items():
        if name not in names and plain(flat[name]) != plain(value):
            yield f"{study.name}: {name} {value} is trained at {flat[name]}"


def planned(plan: Plan) -> Iterator[tuple[Study, Member]]:
    described = {study.name: study for study in plan.sweep.studies}
    for study in plan.studies:
        for member in plan.expected(study):
            yield described[study.name], member


SWEEPS = list_sweeps()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", SWEEPS)
def test_every_label_is_the_configurations_value_under_random_settings(name, seed):
    random = np.random.default_rng([seed, SWEEPS.index(name)])
    sweep = get_sweep(name)
    checked = 0
    for study in sweep.studies:
        drawn = [SETTINGS[i] for i in random.choice(len(SETTINGS), int(random.integers(1, 3)), replace=False)]
        scale = random.choice([None, "smoke"])  # pyright: ignore
        try:
            plan = Plan(sweep, Overrides(only=study.name, values=tuple(dict(drawn).items()), scale=scale, seeds=2))
        except UserError:
            continue
        checked += 1
        assert [text for own, member in planned(plan) for text in wrong(own, member)] == []
    assert checked, "all were refused"


@pytest.mark.parametrize("name", SWEEPS)
def test_every_label_is_true_as_studies_are_described(name):
    for scale in (None, "smoke"):
        found = [
            text
            for own, member in planned(Plan(get_sweep(name), Overrides(scale=scale)))
            for text in wrong(own, member)
        ]
        assert found == []


def test_an_axis_that_is_set_has_one_value_and_the_label_says_it():
    plan = Plan(get_sweep("quickstart"), Overrides(only="estimators", values=(("optim.lr", 0.005),)))
    members = plan.members["estimators"]
    assert [member.labels["optim.lr"] for member in members] == [0.005] * 5
    assert len({member.labels["method"] for member in members}) == 5


def test_a_searched_field_that_is_set_is_searched_no_more(ledger):
    plan = Plan(get_sweep("quickstart"), Overrides(only="search", values=(("optim.lr", 0.005),)))
    (study,) = plan.studies
    assert study.search is not None
    assert [dimension.key for dimension in study.search.space] == ["likelihood.variance"]
    members = unfold(plan, ledger)["search"].more({}, set())
    assert len(members) == 4
    assert {(member.labels["optim.lr"], member.config.optim.lr) for member in members} == {(0.005, 0.005)}
    assert len({member.labels["likelihood.variance"] for member in members}) == 4


def test_a_search_with_nothing_left_to_search_is_one_cell():
    plan = Plan(SMALL, Overrides(only="searched", values=(("optim.lr", 0.02),)))
    assert [member.labels for member in plan.members["searched"]] == [{"optim.lr": 0.02}]
    assert plan.total() == 1


def test_a_dimension_that_exists_with_another_keeps_its_condition(ledger):
    kinds = Variants("guide", {"none": {"guide": None}, "guided": {"guide": {"annealing_rate": 0.5}}})
    rate = Uniform("guide.lr_mu", 0.1, 0.9, when=("guide", ("guided",)))
    study = dataclasses.replace(SEARCH, search=Search(space=(kinds, rate), members=12, batch=12, sampler="random"))
    plan = Plan(Sweep("s", "", (study,)), Overrides(values=(("guide.lr_mu", 0.25),)))
    assert plan.studies[0].search.space[1:] == (Choice("guide.lr_mu", (0.25,), rate.when),)
    labels = [member.labels for member in CellSearch(plan, plan.cells(study)[0], ledger).next_batch({})]
    assert {tuple(each.items()) for each in labels} == {
        (("guide", "none"),),
        (("guide", "guided"), ("guide.lr_mu", 0.25)),
    }


def test_a_field_that_is_set_is_taken_from_nobody():
    taking = dataclasses.replace(GRID, name="taking", grid=GRID.grid[1:], takes=(Winner("grid", ("optim.lr",)),))
    plan = Plan(Sweep("s", "", (GRID, taking)), Overrides(only="taking", values=(("optim.lr", 0.5),)))
    assert [study.name for study in plan.studies] == ["taking"]
    assert {member.config.optim.lr for member in plan.members["taking"]} == {0.5}


def test_another_optimizer_is_trained_at_the_rates_of_the_axis():
    plan = Plan(SMALL, Overrides(only="grid", values=(("optim.name", "radam"),)))
    assert {(m.labels["optim.lr"], m.config.optim.lr) for m in plan.members["grid"]} == {(1e-3, 1e-3), (1e-2, 1e-2)}
    assert {m.config.optim.name for m in plan.members["grid"]} == {"radam"}


NAMED = Study(name="named", title="", source="", base=BASE)


@pytest.mark.parametrize(
    ("patches", "setting"),
    [
        ({"silent": {}, "sampled": {"estimator": {"name": "reparameterization"}}}, ("estimator.name", "silent")),
        ({"wide": {"encoder": {"hidden": (16,)}}, "narrow": {}}, ("encoder.hidden", [4])),
        ({"1": {"optim": {"lr": 0.1}}, "2": {"optim": {"lr": 0.2}}}, ("optim.lr", 0.3)),
        ({"without": {}, "with": {"guide": {"annealing_rate": 0.1}}}, ("guide", {"annealing_rate": 0.2})),
    ],
)
def test_a_setting_that_makes_a_name_untrue_is_refused(patches, setting):
    study = dataclasses.replace(NAMED, grid=(Variants("method", patches),))
    with pytest.raises(UserError, match=r"--set .* 'named' .* 'method'.*--only"):
        Plan(Sweep("s", "", (study,)), Overrides(values=(setting,)))


def test_a_field_for_which_no_variant_is_named_may_be_set():
    patches = {"silent": {}, "longer": {"estimator": {"name": "reparameterization"}, "epochs": 9}}
    study = dataclasses.replace(NAMED, grid=(Variants("method", patches),))
    plan = Plan(Sweep("s", "", (study,)), Overrides(values=(("epochs", 3),)))
    assert [(m.labels["method"], m.config.epochs) for m in plan.members["named"]] == [("silent", 3), ("longer", 3)]


def test_a_component_without_the_field_of_an_axis_is_refused():
    with pytest.raises(UserError, match=r"estimator\.name=reinmax removes field 'estimator\.temperature_forward'"):
        Plan(get_sweep("quickstart"), Overrides(only="temperatures", values=(("estimator.name", "reinmax"),)))


def test_suggestions_without_a_setting_lie_where_they_always_did(ledger):
    """The folder's name is as before settings changed the space, so that older searches go on."""
    plan = Plan(SMALL)
    assert CellSearch(plan, plan.cells(SEARCH)[0], ledger)._folder == "searched/bffedc44b437"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.99999, "0.99999"),
        (0.9999, "0.9999"),
        (0.00012345678, "0.00012345678"),
        (1e-3, "0.001"),
        (0.0010000000001, "0.0010000000001"),
        (1e-7, "1e-07"),
        (2.0, "2"),
        (0.00018237462937461, "0.0001824"),  # suggested
        (64, "64"),
        ((8, 8), "(8, 8)"),
        (None, ""),
    ],
)
def test_a_value_that_somebody_wrote_is_shown_whole(value, text):
    assert label(value) == text


def test_only_texts_stand_without_the_name_of_their_field():
    labels = {
        "method": "silent",
        "guide.freeze_epoch": None,
        "batch_size": 64,
        "encoder.hidden": (8, 8),
        "optim.lr": 0.1,
    }
    assert describe(labels) == "silent, freeze epoch none, batch size 64, hidden (encoder) (8, 8), learning rate 0.1"


@pytest.mark.parametrize("seed", [0, 1, 4])
def test_a_seed_that_is_set_is_the_only_one(seed):
    plan = Plan(get_sweep("quickstart"), Overrides(only="temperatures", values=(("seed", seed),)))
    assert [member.config.seed for member in plan.members["temperatures"]] == [seed] * 16
