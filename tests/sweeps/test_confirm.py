"""Confirmation: finalists are chosen once by the seeds of a study, and judged by fresh seeds alone (`--confirm`)."""

import dataclasses
import io
import json
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scripted import BASE, result, row

from search_spaces.figures import Curves, Heatmap, Lines
from search_spaces.published import Number
from search_spaces.space import Axis, Claim, LogUniform, Relation, Search, Study, Sweep, Variants, Winner
from sweeps.analysis import cells as tables
from sweeps.analysis import claims
from sweeps.analysis.best import best
from sweeps.analysis.frames import results_table
from sweeps.analysis.status import study_status
from sweeps.bundle.records import check, kind_of
from sweeps.driver.driver import Driver
from sweeps.errors import UserError
from sweeps.planning.command import of_plan
from sweeps.planning.estimate import estimate
from sweeps.planning.plan import MOST_MEMBERS, Overrides, Plan
from sweeps.planning.saved import last_plan, save_plan
from sweeps.planning.unfold import unfold
from sweeps.records.snapshot import RunSnapshot
from sweeps.report.answers import answer
from sweeps.report.claims_table import claims_table
from sweeps.report.html import report
from sweeps.report.study_table import study_table
from sweeps.run import run
from sweeps.tracking.registry import best_of
from trainables.reports import failures

METHODS = Variants("method", {"silent": {}, "sampled": {"estimator": {"name": "reparameterization"}}})
RATES = (1e-3, 1e-2, 1e-1, 1.0)
STUDY = Study(
    name="rates",
    title="Rates",
    source="nowhere",
    base=BASE,
    grid=(METHODS, Axis("optim.lr", RATES)),
    seeds=(0, 1, 2),
    compare=("method",),
    claims=(Claim("Silent is ahead", {"method": "silent"}, {"method": "sampled"}),),
)
SWEEP = Sweep("small", "A small sweep", (STUDY,))
CONFIRM = Overrides(confirm=5)


def bits(member) -> float:
    """A made-up metric: the best rates are 1e-2 (silent) and 1e-1 (sampled); other rates are far behind.

    The rate of 1e-3 is within the noise of the best silent one.
    """
    silent = member.labels.get("method", "silent") == "silent"
    rate, seed = member.config.optim.lr, member.config.seed
    value = 1.0 + abs(math.log10(rate) + (2 if silent else 1)) + (0.0 if silent else 0.5)
    noise = np.random.default_rng([seed, round(1e4 * rate), silent]).normal()
    if silent and rate == 1e-3:
        return 1.0 + 0.02 + 0.05 * noise
    return value + 0.05 * noise


def outcome(made=bits):
    def train(driver, cohort):
        driver.ended(cohort, [result(m, metrics={"bits_per_dim": made(m)}) for m in cohort.members])

    return train


def driver(ledger, overrides=CONFIRM, sweep=SWEEP, **options) -> Driver:
    return Driver(Plan(sweep, overrides), ledger, **({"retry_failed": False} | options))


def trained(cohorts) -> list:
    return [member for cohort in cohorts for member in cohort.members]


def finalists(d, study=STUDY) -> set[tuple]:
    return {tuple(m.labels.values()) for m in d.members() if m.confirms and m.study == study.name}


def choices(storage) -> list[str]:
    """The recorded finalists of `STUDY`, which takes no winners."""
    return storage.list("choices/rates", ".json")


EXPECTED = {("silent", 1e-2), ("silent", 1e-3), ("sampled", 1e-1)}


def test_finalists_are_trained_with_fresh_seeds_after_all_others(ledger, storage, drain):
    d = driver(ledger)
    assert finalists(d) == set()
    all_trained = trained(drain(d, outcome()))
    assert finalists(d) == EXPECTED
    own, fresh = [m for m in all_trained if not m.confirms], [m for m in all_trained if m.confirms]
    assert all_trained == [*own, *fresh], "nothing is confirmed before all have chosen"
    assert len(own) == 24
    assert len(fresh) == 15
    assert {m.config.seed for m in fresh} == {1000, 1001, 1002, 1003, 1004}
    plain = {m.key for m in Plan(SWEEP).members["rates"]}
    assert {m.key for m in own} == plain, "keys of the study's own members do not change"
    assert not plain & {m.key for m in fresh}
    for member in fresh:
        twin = next(m for m in own if m.labels == member.labels)
        assert member.config == twin.config.model_copy(update={"seed": member.config.seed})
    assert len(choices(storage)) == 1


def test_finalists_say_why_they_were_chosen(ledger, storage, drain):
    drain(driver(ledger), outcome())
    (name,) = choices(storage)
    recorded = json.loads(storage.read(name))
    assert (recorded["from"], recorded["metric"], recorded["mode"]) == ("rates", "bits_per_dim", "min")
    reasons = {tuple(e["labels"].values()): reason for e in recorded["evidence"] for reason in e["values"].values()}
    assert {key for e in recorded["evidence"] for key in e["values"]} == recorded["values"].keys()
    assert reasons == {
        ("silent", 1e-2): "the best of its row",
        ("sampled", 1e-1): "the best of its row",
        ("silent", 1e-3): "within the noise of the best of its row",
    }
    assert all(e["n"] == e["planned"] == 3 for e in recorded["evidence"])
    assert kind_of(name) == "choices"
    assert check(name, storage.read(name)) == [], "a bundle takes it along"


@pytest.mark.parametrize("ended", [0, 5, 23, 24, 25, 33, 39])
def test_a_run_that_goes_on_has_the_same_finalists_and_trains_only_the_rest(ledger, storage, drain, ended):
    whole = Driver(Plan(SWEEP, CONFIRM), ledger, retry_failed=False)
    whole.begin(slots=2, pack=1)
    done = []
    while len(done) < ended and (cohort := whole.next()) is not None:
        outcome()(whole, cohort)
        done += cohort.members
    again = driver(ledger)
    rest = trained(drain(again, outcome()))
    assert {m.key for m in done} | {m.key for m in rest} == {m.key for m in again.members()}
    assert len(done) + len(rest) == 39
    assert finalists(again) == EXPECTED
    assert len(choices(storage)) == 1
    third = driver(ledger)
    assert not third.todo
    assert finalists(third) == EXPECTED


def test_recorded_finalists_hold_even_if_results_change(ledger, drain):
    drain(driver(ledger), outcome())
    worse = [m for m in driver(ledger).members() if m.labels["optim.lr"] == 1.0 and not m.confirms]
    assert len(worse) == 6
    ledger.append([row(m, metrics={"bits_per_dim": -9.0}) for m in worse])
    again = driver(ledger)
    assert again.rows[worse[0].key].metrics["bits_per_dim"] == -9.0
    assert finalists(again) == EXPECTED
    found = tables.cells(STUDY, again.members(), again.rows)
    assert tuple(tables.standing(STUDY, found).labels.values()) in EXPECTED, "what is judged was confirmed"


def test_more_fresh_seeds_train_only_the_new_ones(ledger, storage, drain):
    drain(driver(ledger), outcome())
    more = driver(ledger, Overrides(confirm=8))
    new = trained(drain(more, outcome()))
    assert len(new) == 9
    assert {m.config.seed for m in new} == {1005, 1006, 1007}
    assert finalists(more) == EXPECTED
    assert len(choices(storage)) == 1
    fewer = driver(ledger, Overrides(confirm=2))
    assert not fewer.todo
    assert len(fewer.members()) == 24 + 6


def test_without_confirm_the_same_results_show_unconfirmed(ledger, drain):
    drain(driver(ledger), outcome())
    plain = driver(ledger, Overrides())
    assert not plain.todo
    assert len(plain.members()) == 24
    assert not any(cell.confirmation for cell in tables.cells(STUDY, plain.members(), plain.rows))


def test_more_seeds_that_choose_choose_the_finalists_anew(ledger, storage, drain):
    drain(driver(ledger), outcome())
    drain(driver(ledger, Overrides(confirm=5, seeds=4)), outcome())
    assert len(choices(storage)) == 2


def test_seeds_of_the_study_itself_are_not_fresh():
    shifted = dataclasses.replace(STUDY, seeds=(999, 1000, 1002))
    plan = Plan(Sweep("small", "", (STUDY, dataclasses.replace(shifted, name="other"))), CONFIRM)
    assert plan.confirming_seeds == (1001, 1003, 1004, 1005, 1006)
    assert Plan(SWEEP).confirming_seeds == ()


def test_one_seed_has_no_noise_to_be_within(ledger, drain):
    single = dataclasses.replace(STUDY, seeds=(0,))
    d = driver(ledger, sweep=Sweep("small", "", (single,)))
    drain(d, outcome())
    assert len(finalists(d)) == 2


def test_rivals_are_at_most_two(ledger, drain):
    """All rates are equal but for noise; the other method is far behind."""

    def equal(member):
        noise = np.random.default_rng([member.config.seed, round(1e4 * member.config.optim.lr)]).normal()
        return (0.0 if member.labels["method"] == "silent" else 5.0) + noise

    d = driver(ledger)
    drain(d, outcome(equal))
    assert len([labels for labels in finalists(d) if labels[0] == "silent"]) == 3
    assert len(finalists(d)) == 6
    assert len(d.members()) == d.plan.total() == 24 + 30, "as many as the plan says at most"


FORWARD, BACKWARD = "likelihood.variance", "optim.lr"
VALUES = (0.01, 0.1, 0.5)
MAP = dataclasses.replace(
    STUDY,
    name="map",
    grid=(Axis(FORWARD, VALUES), Axis(BACKWARD, VALUES)),
    compare=(FORWARD, BACKWARD),
    figures=(Heatmap(FORWARD, BACKWARD),),
    claims=(Claim("Off the diagonal", {FORWARD: Relation("<", BACKWARD)}, {FORWARD: Relation("=", BACKWARD)}),),
)


def map_bits(member):
    forward, backward = member.config.likelihood.variance, member.config.optim.lr
    noise = np.random.default_rng([member.config.seed, round(100 * forward), round(100 * backward)]).normal()
    return abs(forward - 0.1) + 10 * abs(backward - 0.5) + 0.001 * noise


def test_of_a_heatmap_the_best_field_the_best_on_the_diagonal_and_the_sides_of_claims_are_confirmed(ledger, drain):
    d = driver(ledger, sweep=Sweep("small", "", (MAP,)))
    drain(d, outcome(map_bits))
    assert finalists(d, MAP) == {(0.1, 0.5), (0.5, 0.5)}
    found = tables.cells(MAP, d.members(), d.rows)
    text = answer(MAP, found)
    assert "confirmed on 5 fresh seeds; 3 seeds chose it" in text
    assert "Against the best on the diagonal (variance 0.5, learning rate 0.5): better by" in text
    assert "these seeds chose neither" in text


SEARCHED = dataclasses.replace(
    STUDY,
    name="searched",
    grid=(METHODS,),
    search=Search(space=(LogUniform("optim.lr", 1e-4, 1.0),), members=6, batch=2, halving=2),
    seeds=(0,),
)
TUNED = dataclasses.replace(
    STUDY,
    name="tuned",
    grid=(METHODS, Axis("likelihood.variance", (0.02, 0.2))),
    takes=(Winner("rates", ("optim.lr",), match=("method",)),),
)
STAGED = Sweep("staged", "", (STUDY, SEARCHED, TUNED))


def test_searches_and_studies_that_take_winners_are_confirmed_too(ledger, drain):
    d = driver(ledger, sweep=STAGED)
    assert len(d.left()) == d.plan.total()
    all_trained = trained(drain(d, outcome()))
    for study in STAGED.studies:
        own = [m for m in all_trained if m.study == study.name]
        first = next(i for i, m in enumerate(own) if m.confirms)
        assert all(m.confirms for m in own[first:]), "once all others have ended"
        assert {m.labels["method"] for m in own[first:]} == {"silent", "sampled"}
        assert d.unfoldings.size(study) == len(own) <= d.plan.size(study)
    assert all(m.halving is None for m in all_trained if m.confirms), "a finalist trains to the end"
    taken = {m.config.optim.lr for m in d.members() if m.study == "tuned" and not m.confirms}
    assert taken <= {1e-2, 1e-3, 1e-1}, "winners are taken by the seeds that choose"
    assert len(all_trained) == d.unfoldings.total() == len({m.key for m in all_trained})
    again = driver(ledger, sweep=STAGED)
    assert not again.todo
    assert {m.key for m in again.members()} == {m.key for m in all_trained}


def test_a_blocked_row_does_not_keep_the_others_from_being_confirmed(ledger, drain):
    def breaks(d, cohort):
        bad = [m for m in cohort.members if m.study == "rates" and m.labels["method"] == "silent"]
        good = [m for m in cohort.members if m not in bad]
        rows = [result(m, metrics={"bits_per_dim": bits(m)}) for m in good]
        d.ended(cohort, [*failures([m.key for m in bad], "error", "…"), *rows])

    sweep = Sweep("staged", "", (STUDY, TUNED))
    d = driver(ledger, sweep=sweep)
    drain(d, breaks)
    assert d.blocked == ["tuned needs the best of rates with method silent, but no member has finished"]
    assert {labels[0] for labels in finalists(d, TUNED)} == {"sampled"}
    again = driver(ledger, sweep=sweep)
    assert not again.todo
    assert finalists(again, TUNED) == finalists(d, TUNED)
    mended = driver(ledger, sweep=sweep, retry_failed=True)
    drain(mended, outcome())
    assert {labels[0] for labels in finalists(mended, TUNED)} == {"silent", "sampled"}, "chosen again from all rows"


def test_a_study_without_results_has_no_finalists_and_ends(ledger, drain):
    d = driver(ledger)
    drain(d, lambda d, cohort: d.ended(cohort, failures([m.key for m in cohort.members], "diverged", None)))
    assert finalists(d) == set()
    assert len(d.members()) == d.unfoldings.total() == 24
    assert not driver(ledger).todo


# --- numbers of members ----------------------------------------------------------------------------------------------


def test_plan_status_and_estimate_count_finalists_before_and_after(ledger, storage, drain, tmp_path):
    plan = Plan(SWEEP, CONFIRM)
    assert plan.size(STUDY) == plan.total() == 24 + 5 * 6
    assert len(plan.expected(STUDY)) == plan.total()

    def estimated():
        own, total = estimate(plan, storage, rates=None, slots=1, pack=None, data_dir=tmp_path)
        assert (own.members, own.done, own.epochs) == (total.members, total.done, total.epochs)
        return own.members, own.done, own.epochs

    assert estimated() == (54, 0, 108)
    d = driver(ledger)
    d.begin(slots=1, pack=12)
    for _ in range(2):
        outcome()(d, d.next())
    status = study_status(unfold(plan, ledger)["rates"], ledger.read(), set(), RunSnapshot(), {})
    assert (status.members, status.done, status.missing, status.unknown) == (54, 24, 30, 30)
    assert estimated() == (54, 24, 60)
    assert d.next() is not None
    status = study_status(unfold(plan, ledger)["rates"], ledger.read(), set(), RunSnapshot(), {})
    assert (status.members, status.done, status.missing, status.unknown) == (39, 24, 15, 0)
    assert estimated() == (39, 24, 30)
    drain(driver(ledger), outcome())
    assert estimated() == (39, 39, 0)


def test_the_plan_limit_counts_finalists():
    with pytest.raises(UserError, match="--confirm"):
        Plan(SWEEP, Overrides(confirm=MOST_MEMBERS // 6))
    with pytest.raises(UserError, match="--confirm is at most"):
        Plan(SWEEP, Overrides(confirm=10**12))


def test_one_seed_for_all_is_refused():
    with pytest.raises(UserError, match="--set seed"):
        Plan(SWEEP, Overrides(confirm=5, values=(("seed", 3),)))


def test_the_option_is_saved_and_repeated(storage, monkeypatch):
    assert of_plan(Plan(SWEEP, CONFIRM)).words[-2:] == ("--confirm", "5")
    save_plan(storage, CONFIRM)
    monkeypatch.setattr("sweeps.planning.saved.find_sweep", lambda *_: SWEEP)
    assert last_plan(storage).overrides == CONFIRM


@pytest.mark.parametrize("words", [("--confirm", "1"), ("--confirm", "x"), ("--confirm", "3", "--set", "seed=1")])
def test_bad_values_end_with_one_line(command, words):
    code, out, err = command(run, "quickstart", "--plan", *words)
    assert code == 2
    assert "Traceback" not in out + err
    assert "confirm" in err


def test_the_plan_says_that_finalists_are_an_upper_bound(command):
    code, out, _ = command(run, "quickstart", "--plan", "--confirm", "5")
    assert code == 0
    assert "--confirm 5: at most" in out


# --- judging ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def confirmed(ledger, drain):
    d = driver(ledger)
    drain(d, outcome())
    return d


def frame(d) -> pd.DataFrame:
    """The results as a user reads them: results.parquet."""
    return results_table(d.members(), d.rows, {})


def by_seed(table, method, rate) -> pd.Series:
    name = {"silent": "silent", "sampled": "reparameterization"}[method]
    same = (table["config.estimator.name"] == name) & (table["config.optim.lr"] == rate)
    return table[same].set_index("seed")["metrics.bits_per_dim"]


def chosen_rate(table, method):
    """The best rate of a method by the seeds that choose, by pandas."""
    means = {rate: by_seed(table[~table["confirms"]], method, rate).mean() for rate in RATES}
    return min(means, key=means.get)


def test_verdict_table_and_headline_are_of_the_fresh_seeds_alone(confirmed):
    table = frame(confirmed)
    assert table["confirms"].sum() == 15
    fresh = table[table["confirms"]]
    better, worse = (by_seed(fresh, m, chosen_rate(table, m)) for m in ("silent", "sampled"))
    assert sorted(better.index) == [1000, 1001, 1002, 1003, 1004]
    test = stats.ttest_rel(better, worse, alternative="less")

    found = tables.cells(STUDY, confirmed.members(), confirmed.rows)
    (verdict,) = claims.tested(STUDY, found)
    assert verdict.comparison.gain.n == 5
    assert verdict.judgement.p_better == pytest.approx(test.pvalue)
    assert verdict.verdict == "reproduced"
    shown = study_table(STUDY, found, "")
    assert shown.headings[-2:] == ["seeds that chose", "seeds that confirm"]
    record = {each["method"]: each for each in shown.records}
    for method, values in (("silent", better), ("sampled", worse)):
        assert record[method]["bits_per_dim_mean"] == pytest.approx(values.mean())
        assert record[method]["bits_per_dim_stderr"] == pytest.approx(values.sem())
        assert (record[method]["chose"], record[method]["seeds"], record[method]["confirmed"]) == (3, 5, True)
        assert record[method]["optim.lr"] == chosen_rate(table, method)
    (claim,) = claims_table(STUDY, [verdict], "").records
    assert claim["confirmed"] is True
    assert claim["gain"] == pytest.approx((worse - better).mean())
    one = best(STUDY, confirmed.members(), confirmed.rows)
    assert (one.mean, one.n, one.planned) == (pytest.approx(better.mean()), 5, 5)
    assert (one.confirmed, one.chose) == (True, 3)
    assert str(one).endswith("n = 5 fresh seeds)")
    assert "confirmed on 5 fresh seeds; 3 seeds chose it" in answer(STUDY, found)


def test_choosing_seeds_never_judge_and_fresh_seeds_never_choose(ledger, drain):
    """On the seeds that choose silent is far ahead at 1e-2; on the fresh seeds at 1e-3, and behind sampled."""

    def turned(member):
        if not member.confirms:
            return bits(member) - (3.0 if member.labels["method"] == "silent" else 0.0)
        noise = 0.01 * np.random.default_rng([member.config.seed, round(1e4 * member.config.optim.lr)]).normal()
        return {("silent", 1e-2): 9.0, ("silent", 1e-3): 7.0}.get(tuple(member.labels.values()), 8.0) + noise

    d = driver(ledger)
    drain(d, outcome(turned))
    assert finalists(d) == EXPECTED
    found = tables.cells(STUDY, d.members(), d.rows)
    chosen = {"method": "silent", "optim.lr": 1e-2}
    assert chosen_rate(frame(d), "silent") == 1e-2
    assert tables.standing(STUDY, found).labels == chosen
    (verdict,) = claims.tested(STUDY, found)
    assert verdict.better.labels == chosen
    assert verdict.verdict == "contradicted"
    text = answer(STUDY, found)
    assert "Best: silent, learning rate 0.01" in text
    for ahead in ("silent, learning rate 0.001", "sampled, learning rate 0.1"):
        assert f"On the fresh seeds the choice did not hold: {ahead} is better by" in text
    assert best_of("small", STUDY, [(m, d.rows[m.key]) for m in d.members()]).cell.labels == chosen


def test_diverged_finalists_are_told(ledger, drain):
    def breaks(d, cohort):
        bad = [m for m in cohort.members if m.confirms and m.labels["method"] == "silent"]
        good = [m for m in cohort.members if m not in bad]
        rows = [result(m, metrics={"bits_per_dim": bits(m)}) for m in good]
        d.ended(cohort, [*failures([m.key for m in bad], "diverged", None), *rows])

    d = driver(ledger)
    drain(d, breaks)
    found = tables.cells(STUDY, d.members(), d.rows)
    assert "not confirmed: of 5 fresh seeds 5 failed" in answer(STUDY, found)
    (verdict,) = claims.tested(STUDY, found)
    assert verdict.verdict == "undecided"
    assert verdict.lost == "of 5 seeds of the better row 5 failed"
    shown = study_table(STUDY, found, "")
    by_method = {each["method"]: each for each in shown.records}
    assert by_method["silent"]["bits_per_dim_mean"] is None, "no number of the seeds that chose stands in for it"
    assert by_method["silent"]["failed"] == 5
    assert not best(STUDY, d.members(), d.rows).confirmed


def test_the_registered_model_is_of_a_seed_that_chose(confirmed):
    model = best_of("small", STUDY, [(m, confirmed.rows[m.key]) for m in confirmed.members()])
    assert not model.member.confirms
    assert "over 5 of 5 fresh seeds" in model.description


@pytest.mark.parametrize("mark", ["", "NOT COMPARABLE WITH THE PAPER: …"])
def test_only_comparable_results_are_called_consistent_or_not(mark, monkeypatch, confirmed):
    number = Number(labels={"method": "silent"}, metric="bits_per_dim", value=1.0, stderr=0.1, n=3)
    for module in ("sweeps.analysis.paper", "sweeps.report.study_table"):
        monkeypatch.setattr(f"{module}.printed", lambda study: (number,))
    table = study_table(STUDY, tables.cells(STUDY, confirmed.members(), confirmed.rows), mark)
    assert ("consistent" in table.headings) is (mark == "")
    assert "difference" in table.headings
    record = next(each for each in table.records if each["method"] == "silent")
    assert record["bits_per_dim_difference"] is not None
    assert (record["bits_per_dim_consistent"] is None) is (mark != "")
    assert all(len(line) == len(table.headings) for line in table.rows)


# --- the page --------------------------------------------------------------------------------------------------------

DRAWN = dataclasses.replace(
    STUDY,
    figures=(Curves("method", target=1.5), Lines("optim.lr", series="method", log_x=True)),
)


@pytest.mark.parametrize("fresh", ["finished", "failed", "missing"])
def test_the_page_tells_fresh_seeds_from_seeds_that_chose(ledger, drain, fresh):
    sweep = Sweep("small", "", (DRAWN, MAP))
    d = driver(ledger, sweep=sweep)
    drain(d, outcome(lambda m: map_bits(m) if m.study == "map" else bits(m)))
    rows = dict(d.rows)
    for member in d.members():
        if member.confirms and fresh == "missing":
            del rows[member.key]
        elif member.confirms and fresh == "failed":
            rows[member.key] = row(member, status="failed", reason="diverged", metrics={}, history={})
    files = report(d.plan, d.members(), rows)
    page = files["index.html"].decode()
    assert "confirmed on 5 fresh seeds, which chose nothing" in page
    assert "seeds that chose nothing judge them" in page
    assert "the same seeds chose it" not in page
    assert "Finalists with the fresh seeds that confirm them" in page
    assert "Claims, tested over fresh seeds that chose neither row" in page
    assert ("with 5 fresh seeds the best has" in page) is (fresh == "finished")
    assert page.count("(confirmed on 5 fresh seeds; 3 seeds chose it)") == (2 if fresh == "finished" else 0)
    assert page.count(f"not confirmed: of 5 fresh seeds 5 {fresh}") == (0 if fresh == "finished" else 2)
    table = pd.read_csv(io.BytesIO(files["tables/map.csv"]))
    assert table["confirmed"].sum() == 2
    plain = report(Plan(sweep), [m for m in d.members() if not m.confirms], rows)
    assert b"the same seeds chose it" in plain["index.html"]
    assert b"fresh seeds that confirm" not in plain["index.html"]
