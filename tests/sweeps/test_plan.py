import dataclasses
import re

import pytest
from scripted import BASE, GRID, SEARCH, SMALL

from search_spaces import get_sweep
from search_spaces.scale import SCALES
from search_spaces.space import Claim, Sweep
from sweeps.errors import UserError
from sweeps.planning.plan import Overrides, Plan, SearchOptions
from sweeps.planning.settings import parse_setting
from sweeps.run import run


def plan(*values: tuple, **overrides) -> Plan:
    return Plan(SMALL, Overrides(values=values, **overrides))


def test_a_grid_is_crossed_with_its_seeds():
    members = plan().members["grid"]
    assert len({member.key for member in members}) == len(members) == 8
    assert plan().total() == 8 + 7


def test_seeds_and_only_narrow_or_widen():
    assert len(plan(seeds=3).members["grid"]) == 12
    assert [study.name for study in plan(only="sea*").studies] == ["searched"]
    with pytest.raises(UserError, match="grid, searched"):
        plan(only="nothing*")


def test_settings_reach_every_member_that_has_the_field():
    assert {member.config.epochs for member in plan(("epochs", 5)).members["grid"]} == {5}
    changed = plan(("epochs", 5))
    assert changed.members_of(changed.cells(SEARCH)[0], {"optim.lr": 1e-3})[0].config.epochs == 5


def test_settings_can_make_members_equal_and_they_are_then_one():
    assert len(plan(("optim.lr", 1e-3)).members["grid"]) == 4


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (("optim.lrr", 1.0), "did you mean 'optim.lr'"),
        (("optim.lr", -1.0), "optim.lr"),
        (("epochs", 0), "epochs"),
        (("data.name", "digitz"), "did you mean 'digits'|Did you mean 'digits'"),
        (("seed", "x"), "seed"),
    ],
)
def test_bad_settings_are_told_in_one_line(setting, message):
    with pytest.raises(UserError, match=message) as caught:
        plan(setting)
    assert "\n" not in str(caught.value)


def test_a_setting_needs_an_equals_sign():
    assert parse_setting("optim.lr=1e-3") == ("optim.lr", 1e-3)
    assert parse_setting("data.name=digits") == ("data.name", "digits")
    assert parse_setting("encoder.hidden=[8, 4]") == ("encoder.hidden", [8, 4])
    with pytest.raises(UserError, match="KEY=VALUE"):
        parse_setting("optim.lr")


def test_an_invalid_study_is_refused_with_its_name():
    broken = dataclasses.replace(GRID, base=BASE | {"estimator": {"name": "silnet"}})
    with pytest.raises(UserError, match=r"study 'grid'.*silent"):
        Plan(Sweep("broken", "x", (broken,)))


@pytest.mark.parametrize(
    "change",
    [
        lambda plan: setattr(plan, "overrides", Overrides(seeds=9)),
        lambda plan: setattr(plan, "studies", ()),
        lambda plan: setattr(plan, "note", "anything"),
        lambda plan: plan.members.update(grid=()),
        lambda plan: plan.members.pop("grid"),
        lambda plan: plan.studies.append(GRID),
    ],
)
def test_a_plan_does_not_change(change):
    whole = plan()
    with pytest.raises((dataclasses.FrozenInstanceError, AttributeError, TypeError)):
        change(whole)
    assert whole.total() == 15
    assert [study.name for study in whole.studies] == ["grid", "searched"]


def of_table_1(*settings):
    plan = Plan(get_sweep("paper_grid"), Overrides(only="sg/table1", values=tuple(map(parse_setting, settings))))
    table = next(study for study in plan.studies if study.name == "sg/table1")
    return plan, plan.example(table).config


def test_a_shorter_training_moves_what_is_measured_and_says_so():
    plan, config = of_table_1("epochs=4")
    assert (config.epochs, config.diagnostics.gradient_variance) == (4, (1, 2, 4))
    (line,) = plan.moved
    assert line == (
        "sg/table1: training is shorter, so gradient_variance is measured after epochs [1, 2, 4], not [10, 200, 500]"
    )


@pytest.mark.parametrize("settings", [(), ("epochs=500",), ("epochs=600",), ("optim.lr=0.1",)])
def test_other_trainings_measure_when_they_are_printed_to(settings):
    plan, config = of_table_1(*settings)
    assert config.diagnostics.gradient_variance == (10, 200, 500)
    assert plan.moved == ()


def test_nothing_is_measured_where_that_is_asked_for():
    plan, config = of_table_1("epochs=4", "diagnostics={}")
    assert list(config.diagnostics.due()) == []
    assert plan.moved == ()
    _, config = of_table_1('diagnostics={"iw_bound": [3]}')
    assert list(config.diagnostics.due()) == [("iw_bound", (3,))]


TABLE_1_UNMEASURED = (
    "sg/table1: with these settings no member measures gradient_variance, which ranks the configurations; "
    "the study will have no result"
)


@pytest.mark.parametrize(
    "setting", ["diagnostics={}", "diagnostics.gradient_variance=[]", 'diagnostics={"iw_bound": [3]}']
)
def test_settings_that_take_away_the_metric_of_a_study_are_told(setting):
    plan, _ = of_table_1(setting)
    assert plan.unmeasured == (TABLE_1_UNMEASURED,)


def test_settings_that_take_away_the_metric_of_a_likelihood_are_told():
    plan = Plan(get_sweep("paper_grid"), Overrides(only="dst/fig3", values=(("likelihood.name", "gaussian_fixed"),)))
    (line,) = plan.unmeasured
    assert line.startswith("dst/fig3: with these settings no member measures bce, which ranks")


def test_settings_that_take_away_the_metric_of_a_claim_are_told():
    claim = Claim("more bounds", {"optim.lr": 1e-3}, {"optim.lr": 1e-2}, metric="iw_bound")
    study = dataclasses.replace(GRID, base=BASE | {"diagnostics": {"iw_bound": (2,)}}, claims=(claim,))
    plan = Plan(Sweep("claimed", "x", (study,)), Overrides(values=(("diagnostics", {}),)))
    (line,) = plan.unmeasured
    assert (
        line == "grid: with these settings no member measures iw_bound, which decides claims; they will have no verdict"
    )


@pytest.mark.parametrize("settings", [(), ("epochs=4",), ("diagnostics.gradient_variance=[3]",), ("optim.lr=0.1",)])
def test_a_metric_that_is_measured_is_not_told(settings):
    plan, _ = of_table_1(*settings)
    assert plan.unmeasured == ()


@pytest.mark.parametrize(
    ("epochs", "never"), [(4, [50, 80, 100, 150, 200]), (100, [150, 200]), (199, [200]), (200, []), (400, [])]
)
def test_encoders_that_a_shorter_training_never_freezes_are_told(epochs, never):
    name = "sg/table3_mnist_annealing"
    plan = Plan(get_sweep("paper_grid"), Overrides(only=name, values=(("epochs", epochs),)))
    told = [line for line in plan.never_frozen if line.startswith(f"{name}: ")]
    text = f"{name}: training is shorter, so encoders never freeze that would freeze in epoch {never}"
    assert told == ([f"{text}; to freeze them, set guide.freeze_epoch, or use --scale"] if never else [])


def test_epochs_after_which_a_study_never_froze_are_not_told():
    """On ImageNet the paper's freeze epoch 150 is after the last epoch, 100."""
    plan = Plan(get_sweep("paper_grid"), Overrides(only="sg/table3_imagenet32_annealing", values=(("epochs", 99),)))
    (line,) = (line for line in plan.never_frozen if "imagenet32_annealing" in line)
    assert "in epoch [100];" in line


@pytest.mark.parametrize("settings", [(("guide.freeze_epoch", 3), ("epochs", 2)), (("epochs", 4),)])
def test_freeze_epochs_that_are_set_or_moved_by_a_scale_are_not_told(settings):
    overrides = Overrides(only="sg/table3_mnist_annealing", values=settings, scale="smoke")
    assert Plan(get_sweep("paper_grid"), overrides).never_frozen == ()


@pytest.mark.parametrize(
    ("only", "setting", "line"),
    [
        ("sg/table1", "diagnostics={}", TABLE_1_UNMEASURED),
        ("sg/table3_mnist_annealing", "epochs=4", "so encoders never freeze that would freeze in epoch [50, 80, 100"),
    ],
)
def test_what_settings_take_away_is_printed_with_the_plan(only, setting, line, command):
    code, out, _ = command(run, "paper_grid", "--plan", "--only", only, "--set", setting)
    assert code == 0
    assert line in out


STATED = re.compile(
    r"at most (\d+) epochs?, (?:at most )?(\d+) seeds?(?:, at most (\d+) images a split)?, .*?"
    r"(?:, (\d+) draws a diagnostic)?\)$"
)


@pytest.mark.parametrize("scale", ["smoke", "day"])
@pytest.mark.parametrize(
    ("settings", "seeds"),
    [
        ((), None),
        (("epochs=4",), None),
        (("epochs=40",), None),
        (("data.limit=1000",), None),
        (("data.limit=null",), None),
        (("diagnostics.draws=7",), None),
        (("diagnostics.draws=null",), None),
        ((), 1),
        ((), 4),
        (("epochs=4", "data.limit=9", "diagnostics.draws=2"), 2),
    ],
)
def test_a_scale_states_what_its_members_train(settings, seeds, scale):
    overrides = Overrides(only="sg/table[12]*", values=tuple(map(parse_setting, settings)), scale=scale, seeds=seeds)
    plan = Plan(get_sweep("paper_grid"), overrides)
    members = {study.name: plan.expected(study) for study in plan.studies}
    configs = [member.config for one in members.values() for member in one]
    held = (
        max(config.epochs for config in configs),
        max(SCALES[scale].seeds, *(len({member.config.seed for member in one}) for one in members.values())),
        configs[-1].data.limit,
        configs[-1].diagnostics.draws,
    )
    match = STATED.search(plan.sweep.title)
    assert match is not None
    assert tuple(int(number) if number else None for number in match.groups()) == held
    assert {study.scale.statement for study in plan.studies} == {plan.sweep.title.partition("reduced: ")[2][:-1]}


def test_epochs_set_at_a_scale_move_what_is_due_as_the_scale_does():
    values = (("epochs", 4),)
    plan = Plan(get_sweep("paper_grid"), Overrides(only="sg/table1", scale="smoke", values=values))
    (table,) = (study for study in plan.studies if study.name == "sg/table1")
    config = plan.example(table).config
    assert (config.epochs, config.diagnostics.gradient_variance) == (4, (1, 2, 4))
    assert "at most 4 epochs" in plan.sweep.title


@pytest.mark.parametrize("value", ["few", 0, -1, 2.5, None])
def test_epochs_that_are_not_valid_are_told_at_a_scale_too(value):
    with pytest.raises(UserError, match="epochs"):
        plan(("epochs", value), scale="smoke")


@pytest.mark.parametrize("setting", ["epochs=few", "epochs=0", "diagnostics=3", 'diagnostics={"elbo": [1]}'])
def test_what_cannot_be_set_is_one_line(setting):
    with pytest.raises(UserError) as error:
        of_table_1(setting)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "overrides",
    [
        Overrides(seeds=100_000),
        Overrides(search=SearchOptions("tpe", 10**9)),
        Overrides(search=SearchOptions("random", 10**30), seeds=10**4),
    ],
    ids=str,
)
def test_too_many_members_are_refused_before_any_is_made(overrides, monkeypatch):
    monkeypatch.setattr("sweeps.planning.plan.complete", lambda config: pytest.fail("a member was made"))
    with pytest.raises(UserError, match=r"^this plan has [\d,]+ members, at most 100,000 are accepted; .*--seeds"):
        Plan(get_sweep("quickstart"), overrides)


@pytest.mark.parametrize("seeds", [100_001, 10**9, 10**30])
def test_too_many_seeds_are_refused_before_a_list_of_them_is_made(seeds, monkeypatch):
    monkeypatch.setattr("sweeps.planning.plan.reseeded", lambda *_: pytest.fail("a list was made"))
    with pytest.raises(UserError, match=f"^--seeds is at most 100,000, got {seeds:,}$"):
        Plan(get_sweep("quickstart"), Overrides(seeds=seeds))


def test_the_most_members_are_accepted(monkeypatch):
    members = plan(seeds=3, only="grid").total()
    monkeypatch.setattr("sweeps.planning.plan.MOST_MEMBERS", members)
    assert plan(seeds=3, only="grid").total() == members
    with pytest.raises(UserError, match=f"this plan has {members + 4} members, at most {members} are accepted"):
        plan(seeds=4, only="grid")


BUDGETS = (1, 8, 30, 200, None)


@pytest.mark.parametrize("study", [study.name for study in get_sweep("paper_grid").studies])
def test_a_searched_study_keeps_its_budget_or_names_the_smallest(study):
    grid = Plan(get_sweep("paper_grid"), Overrides(only=study))
    outcomes = []
    for budget in BUDGETS:
        search = SearchOptions("random", budget)
        try:
            plan = Plan(get_sweep("paper_grid"), Overrides(only=study, search=search))
        except UserError as error:
            smallest = int(str(error).rpartition("--budget ")[2])
            assert budget is not None
            assert smallest > budget
            plan = Plan(
                get_sweep("paper_grid"), Overrides(only=study, search=dataclasses.replace(search, budget=smallest))
            )
            budget = smallest
        assert [each.name for each in plan.studies] == [each.name for each in grid.studies]
        for own, printed in zip(plan.studies, grid.studies, strict=True):
            most = grid.size(printed) if budget is None or own.search is None else budget
            assert 0 < plan.size(own) <= most
        outcomes.append(budget)
    assert outcomes[-2:] == [200, None]


@pytest.mark.parametrize("budget", [8, 30, 100])
@pytest.mark.parametrize("seeds", [None, 1, 2])
def test_a_search_plans_no_more_than_its_budget(budget, seeds):
    plan = Plan(get_sweep("paper_grid"), Overrides(only="dst/fig3", seeds=seeds, search=SearchOptions("tpe", budget)))
    (study,) = plan.studies
    assert study.search is not None
    assert budget - 3 < plan.size(study) <= budget
    assert study.search.members >= min(budget // (seeds or 1), 9) - 1


def test_rows_of_nested_variants_are_searched_row_by_row():
    overrides = Overrides(only="sg/table3_mnist_lr", search=SearchOptions("tpe", 40))
    plan, grid = Plan(get_sweep("paper_grid"), overrides), Plan(get_sweep("paper_grid"), Overrides(only=overrides.only))
    (searched,), (printed,) = plan.studies, grid.studies
    rows = {tuple((k, v) for k, v in cell.labels.items() if k != "optim.lr") for cell in grid.cells(printed)}
    assert {tuple(cell.labels.items()) for cell in plan.cells(searched)} == rows
    assert searched.search is not None
    assert [dimension.key for dimension in searched.search.space] == ["optim.lr"]


def test_a_pattern_that_matches_nothing_is_told_near_names_alone():
    with pytest.raises(UserError, match=r"similar names: .*dst/fig3\b.*paper_grid --plan") as error:
        Plan(get_sweep("paper_grid"), Overrides(only="dst/fig33*"))
    named = [
        study.name
        for study in get_sweep("paper_grid").studies
        if f"{study.name}," in f"{error.value};".replace(";", ",")
    ]
    assert len(named) == 5


@pytest.mark.parametrize(("only", "kept"), [("dvae/tutorial_4x8*", 1), ("dst/fig3", 0), ("sg/table3_mnist", 3)])
def test_studies_that_keep_their_seeds_are_named(command, only, kept):
    code, out, _ = command(run, "paper_grid", "--only", only, "--seeds", "3", "--plan")
    assert code == 0
    told = [line for line in out.splitlines() if "--seeds 3 is for comparisons" in line]
    assert len(told) == bool(kept)
    plan = Plan(get_sweep("paper_grid"), Overrides(only=only, seeds=3))
    assert len(plan.kept_seeds) == kept
    assert all(name in told[0] for name in plan.kept_seeds)
