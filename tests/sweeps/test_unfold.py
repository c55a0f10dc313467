"""Members that the driver hands out: studies that use winners, searches in the cells of a grid, early stopping."""

import dataclasses

import pytest
from scripted import BASE, result, row

from search_spaces.space import Axis, LogUniform, Search, Study, Sweep, Uniform, Variants, Winner
from sweeps.driver.driver import Driver
from sweeps.errors import UserError
from sweeps.planning.plan import Overrides, Plan
from trainables.reports import failures

METHODS = Variants("method", {"silent": {}, "sampled": {"estimator": {"name": "reparameterization"}}})
RATES = Study(
    name="rates",
    title="Rates",
    source="nowhere",
    base=BASE,
    grid=(METHODS, Axis("optim.lr", (1e-3, 1e-2, 1e-1))),
    seeds=(0, 1),
)
TUNED = Study(
    name="tuned",
    title="Variances at the best rates",
    source="nowhere",
    base=BASE | {"optim": {"name": "adam", "lr": 0.5}},
    grid=(METHODS, Axis("likelihood.variance", (0.02, 0.2))),
    takes=(Winner("rates", ("optim.lr",), match=("method",)),),
)
STAGED = Sweep("staged", "Two stages", (RATES, TUNED))
BEST = {"silent": 1e-2, "sampled": 1e-1}


def outcome(best=BEST):
    """Makes up outcomes in which each method has another best rate."""

    def train(driver, cohort):
        results = []
        for member in cohort.members:
            method = "silent" if member.config.estimator.name == "silent" else "sampled"
            value = abs(member.config.optim.lr - best[method]) + 1e-3 * member.config.seed
            results.append(result(member, metrics={"bits_per_dim": value}))
        driver.ended(cohort, results)

    return train


def driver(ledger, sweep=STAGED, **options) -> Driver:
    overrides = options.pop("overrides", Overrides())
    return Driver(Plan(sweep, overrides), ledger, **({"retry_failed": False} | options))


def rates_of(d, study="tuned"):
    return {(m.labels["method"], m.config.optim.lr) for m in d.members() if m.study == study}


def test_a_study_takes_from_the_winner_of_each_row(ledger, drain):
    d = driver(ledger)
    assert d.plan.total() == 12 + 4
    assert len(d.left()) == 16
    assert rates_of(d) == set()
    cohorts = drain(d, outcome())
    assert rates_of(d) == set(BEST.items())
    assert sum(len(cohort.members) for cohort in cohorts) == 16
    order = [member.study for cohort in cohorts for member in cohort.members]
    assert order == sorted(order), "rates come before what is tuned at them"


def test_winners_that_coincide_are_one_member(ledger, drain):
    """Two cells are planned, because two rates may win."""
    merged = dataclasses.replace(TUNED, grid=(METHODS,), base=TUNED.base | {"estimator": {"name": "silent"}})
    both = dataclasses.replace(
        merged, grid=(Variants("method", {"silent": {"optim": {"lr": 0.5}}, "sampled": {"optim": {"lr": 0.6}}}),)
    )
    d = driver(ledger, Sweep("staged", "", (RATES, both)))
    assert d.unfoldings.size(both) == d.plan.size(both) == 2
    assert d.unfoldings.total() == d.plan.total() == 14
    drain(d, outcome({"silent": 1e-3, "sampled": 1e-3}))
    assert d.unfoldings.size(both) == 1
    assert d.unfoldings.total() == 12, "which is one of the rates' own"
    assert (d.plan.size(both), d.plan.total()) == (2, 14), "a plan stays as it was"


def test_the_choice_and_its_evidence_are_recorded(ledger, storage, drain):
    drain(driver(ledger), outcome())
    names = storage.list("choices/tuned", ".json")
    choices = [ledger.choice(name.removeprefix("choices/").removesuffix(".json")) for name in names]
    by_method = {choice["match"]["method"]: choice for choice in choices}
    assert {method: choice["values"]["optim.lr"] for method, choice in by_method.items()} == BEST
    evidence = by_method["silent"]["evidence"]
    assert [cell["labels"]["optim.lr"] for cell in evidence] == [1e-3, 1e-2, 1e-1]
    assert [cell["n"] for cell in evidence] == [2, 2, 2]
    assert by_method["silent"]["winner"]["mean"] == pytest.approx(5e-4), "the mean over seeds"


def test_a_run_that_goes_on_takes_the_same_winner(ledger, drain):
    """This holds even if its rows would now give another winner."""
    first = driver(ledger)
    drain(first, outcome())
    worse = [m for m in first.members() if m.study == "rates" and m.config.optim.lr == 1e-3]
    ledger.append([row(m, metrics={"bits_per_dim": -1.0}) for m in worse])
    again = driver(ledger)
    assert {again.rows[m.key].metrics["bits_per_dim"] for m in worse} == {-1.0}
    assert not again.todo
    assert rates_of(again) == set(BEST.items())


def test_a_damaged_choice_is_made_again(ledger, storage, drain):
    drain(driver(ledger), outcome())
    names = storage.list("choices/tuned", ".json")
    assert len(names) == 2
    for name in names:
        storage.write(name, b"{")
    again = driver(ledger)
    assert not again.todo
    assert rates_of(again) == set(BEST.items())


def test_more_seeds_are_other_evidence_and_choose_anew(ledger, drain):
    drain(driver(ledger), outcome())
    more = driver(ledger, overrides=Overrides(seeds=7))
    drain(more, outcome({"silent": 1e-3, "sampled": 1e-1}))
    assert len([m for m in more.members() if m.study == "rates"]) == 42
    # Two old seeds favour 1e-2, five new ones 1e-3: the mean over all decides.
    assert rates_of(more) == {("silent", 1e-3), ("sampled", 1e-1)}


def test_nothing_to_take_from_is_told_and_the_rest_goes_on(ledger, drain):
    def breaks(d, cohort):
        bad = [m for m in cohort.members if m.study == "rates" and m.config.estimator.name == "silent"]
        good = [m for m in cohort.members if m not in bad]
        d.ended(cohort, [*failures([m.key for m in bad], "error", "…")] + [result(m) for m in good])

    d = driver(ledger)
    drain(d, breaks)
    assert {method for method, _ in rates_of(d)} == {"sampled"}
    assert len(d.blocked) == 1
    assert "method silent" in d.blocked[0]
    again = driver(ledger)
    assert not again.todo
    assert again.blocked == d.blocked
    retried = driver(ledger, retry_failed=True)
    assert retried.todo
    drain(retried, outcome())
    assert dict(rates_of(retried))["silent"] == 1e-2
    assert retried.blocked == []


def test_only_a_study_brings_along_what_it_takes_from():
    assert [study.name for study in Plan(STAGED, Overrides(only="tuned")).studies] == ["rates", "tuned"]


def test_a_failed_seed_loses_to_a_complete_configuration(ledger, drain):
    def one_diverges(d, cohort):
        results = []
        for m in cohort.members:
            value = abs(m.config.optim.lr - 1e-3)
            diverges = m.study == "rates" and m.config.optim.lr == 1e-3 and m.config.seed == 1
            bad = {"status": "failed", "reason": "diverged", "metrics": {}, "history": {}}
            results.append(result(m, **(bad if diverges else {"metrics": {"bits_per_dim": value}})))
        d.ended(cohort, results)

    d = driver(ledger)
    drain(d, one_diverges)
    assert rates_of(d) == {("silent", 1e-2), ("sampled", 1e-2)}


def test_a_field_that_a_possible_winner_lacks_is_refused_before_anything_is_trained():
    wrong = dataclasses.replace(TUNED, takes=(Winner("rates", ("optim.nothing",), match=("method",)),))
    with pytest.raises(UserError, match=r"'tuned' takes 'optim\.nothing' from 'rates', but .* lr 0\.001 has no such"):
        Plan(Sweep("wrong", "", (RATES, wrong)))


OUTPUTS = Variants(
    "output",
    {
        "learned": {"likelihood": {"name": "gaussian_precision"}},
        "fixed": {"likelihood": {"name": "gaussian_fixed", "variance": 0.1}},
    },
)
"""Only one of both has a variance."""


def test_configurations_that_cannot_be_taken_from_need_not_have_the_field():
    source = dataclasses.replace(RATES, grid=(OUTPUTS, Axis("optim.lr", (1e-3, 1e-2))))
    variance = Winner("rates", ("likelihood.variance",), match=("output",), when=("output", ("fixed",)))
    taker = dataclasses.replace(TUNED, grid=(OUTPUTS,), takes=(variance,))
    assert Plan(Sweep("right", "", (source, taker)))
    with pytest.raises(UserError, match=r"'likelihood\.variance' from 'rates', but .*output learned, "):
        Plan(
            Sweep("wrong", "", (source, dataclasses.replace(taker, takes=(dataclasses.replace(variance, when=None),))))
        )


def test_a_suggestion_that_wins_without_the_field_blocks_who_takes_it(ledger, drain):
    source = dataclasses.replace(RATES, grid=(), seeds=(0,), search=Search(space=(OUTPUTS,), members=6, batch=6))
    taker = dataclasses.replace(TUNED, grid=(), takes=(Winner("rates", ("likelihood.variance",)),))

    def learned_wins(d, cohort):
        values = {m.key: float(m.config.likelihood.name == "gaussian_fixed") for m in cohort.members}
        d.ended(cohort, [result(m, metrics={"bits_per_dim": values[m.key]}) for m in cohort.members])

    d = driver(ledger, Sweep("staged", "", (source, taker)))
    drain(d, learned_wins)
    assert {m.labels["output"] for m in d.members()} == {"learned", "fixed"}
    assert d.blocked == ["tuned cannot take from rates: its best configuration has no field 'likelihood.variance'"]


SEARCHED = dataclasses.replace(
    TUNED,
    grid=(METHODS,),
    search=Search(space=(LogUniform("likelihood.variance", 0.01, 1.0),), members=5, batch=2),
)


def test_every_row_is_searched_at_what_it_takes(ledger, drain):
    d = driver(ledger, Sweep("staged", "", (RATES, SEARCHED)))
    assert d.plan.total() == 12 + 2 * 5
    drain(d, outcome())
    found = [m for m in d.members() if m.study == "tuned"]
    assert len(found) == 10
    assert rates_of(d) == set(BEST.items())
    variances = {m.config.likelihood.variance for m in found}
    assert len(variances) == 10, "each row has suggestions of its own"
    assert not driver(ledger, Sweep("staged", "", (RATES, SEARCHED))).todo


CONDITIONAL = Study(
    name="conditional",
    title="Fields that exist with one variant only",
    source="nowhere",
    base=BASE,
    search=Search(
        space=(
            Variants("guide", {"none": {"guide": None}, "guided": {"guide": {"annealing_rate": 0.5}}}),
            Uniform("guide.annealing_rate", 0.1, 0.9, when=("guide", ("guided",))),
            Uniform("guide.freeze_epoch", 1, 2, whole=True, when=("guide", ("guided",))),
        ),
        members=12,
        batch=4,
    ),
)


@pytest.mark.parametrize("sampler", ["tpe", "gp", "random"])
def test_conditional_fields_are_searched_where_they_exist(ledger, drain, sampler):
    search = dataclasses.replace(CONDITIONAL.search, sampler=sampler)
    sweep = Sweep("conditional", "", (dataclasses.replace(CONDITIONAL, search=search),))
    d = driver(ledger, sweep)
    drain(d, lambda d, cohort: d.ended(cohort, [result(m) for m in cohort.members]))
    kinds = {m.labels["guide"]: m for m in d.members()}
    assert set(kinds) == {"none", "guided"}
    assert kinds["none"].config.guide is None
    assert set(kinds["none"].labels) == {"guide"}
    assert kinds["guided"].config.guide.freeze_epoch in (1, 2)
    assert 0.1 <= kinds["guided"].config.guide.annealing_rate <= 0.9
    again = driver(ledger, sweep)
    assert [m.key for m in again.members()] == [m.key for m in d.members()]
    assert not again.todo


HALVED = Study(
    name="halved",
    title="Stopped early",
    source="nowhere",
    base=BASE | {"epochs": 9},
    search=Search(space=(LogUniform("optim.lr", 1e-4, 1e-1),), members=12, batch=6, halving=3),
)


def stop_most(d, cohort):
    assert cohort.halving is not None
    assert cohort.halving.factor == 3
    ranked = sorted(cohort.members, key=lambda m: m.config.optim.lr)
    d.ended(cohort, [result(m, status="stopped" if m in ranked[2:] else "finished") for m in cohort.members])


def test_a_batch_that_competes_is_one_cohort_and_the_stopped_are_done(ledger, drain):
    sweep = Sweep("halved", "", (HALVED,))
    cohorts = drain(driver(ledger, sweep), stop_most)
    assert [len(cohort.members) for cohort in cohorts] == [6, 6]
    assert not driver(ledger, sweep).todo


def test_one_stopped_early_is_trained_to_its_end_for_a_study_that_needs_it(ledger, drain):
    halved = driver(ledger, Sweep("halved", "", (HALVED,)))
    drain(halved, stop_most)
    stopped = [m for m in halved.members() if ledger.read()[m.key].status == "stopped"]
    values = tuple(m.config.optim.lr for m in halved.members())
    grid = Study(name="grid", title="", source="", base=HALVED.base, grid=(Axis("optim.lr", values),))
    d = driver(ledger, Sweep("halved", "", (HALVED, grid)))
    cohorts = drain(d, lambda d, cohort: d.ended(cohort, [result(m) for m in cohort.members]))
    trained = {m.key for cohort in cohorts for m in cohort.members}
    assert trained == {m.key for m in stopped}
    assert len(trained) == 8
    assert all(cohort.halving is None for cohort in cohorts)
    assert {row.status for row in ledger.read().values()} == {"finished"}
