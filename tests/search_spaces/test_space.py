import pytest

from search_spaces import UnknownSweep, get_sweep, list_sweeps
from search_spaces.space import Axis, LogUniform, Search, Study, Sweep, Uniform, Variants, Winner, merge, nested


def study(**changes):
    return Study(**({"name": "s", "title": "S", "source": "x", "base": {"a": {"b": 1, "c": 2}}} | changes))


def test_a_patch_is_merged_level_by_level_and_nothing_is_changed():
    base = {"a": {"b": 1, "c": 2}, "d": 3}
    assert merge(base, {"a": {"b": 9}}) == {"a": {"b": 9, "c": 2}, "d": 3}
    assert base == {"a": {"b": 1, "c": 2}, "d": 3}


@pytest.mark.parametrize("kind", ["name", "family"])
def test_a_table_that_names_its_kind_replaces_the_old_one(kind):
    assert merge({"a": {kind: "old", "knob": 1}}, {"a": {kind: "new"}}) == {"a": {kind: "new"}}


def test_another_data_set_is_seen_through_the_same_pixels():
    base = {"data": {"name": "digits", "pixels": "unit"}}
    assert merge(base, {"data": {"name": "mnist"}}) == {"data": {"name": "mnist", "pixels": "unit"}}


def test_nested_builds_the_patch_of_a_path():
    assert nested("a.b.c", 1) == {"a": {"b": {"c": 1}}}


def test_cells_are_the_product_of_the_axes_with_labels():
    grid = (Axis("a.b", (1, 2)), Variants("method", {"x": {"e": 1}, "y": {"e": 2}}))
    cells = list(study(grid=grid).cells())
    assert [labels for labels, _ in cells] == [
        {"a.b": 1, "method": "x"},
        {"a.b": 1, "method": "y"},
        {"a.b": 2, "method": "x"},
        {"a.b": 2, "method": "y"},
    ]
    assert cells[3][1] == {"a": {"b": 2, "c": 2}, "e": 2}


@pytest.mark.parametrize(
    "make",
    [
        lambda: study(name="Bad Name"),
        lambda: study(name="../up"),
        lambda: study(seeds=()),
        lambda: Search(space=(LogUniform("a.b", 1, 2),), members=1, batch=1, halving=0),
        lambda: Sweep(
            "order", "a winner of what comes later", (study(takes=(Winner("t", ("a.b",)),)), study(name="t"))
        ),
        lambda: Axis("a", ()),
        lambda: Uniform("a", 2, 1),
        lambda: LogUniform("a", 0, 1),
        lambda: Search(space=(), members=0, batch=1),
        lambda: Sweep("a/b", "slash"),
        lambda: Sweep("twice", "two of one name", (study(), study())),
    ],
)
def test_bad_descriptions_are_refused(make):
    with pytest.raises(ValueError, match=r"needs?|may have lower-case|must come before|two studies"):
        make()


def test_unknown_sweeps_list_the_known_ones():
    with pytest.raises(UnknownSweep, match="quickstart"):
        get_sweep("quickstrat")


def test_quickstart_is_the_three_studies_it_says():
    assert "quickstart" in list_sweeps()
    estimators, temperatures, search = get_sweep("quickstart").studies
    labels = [labels for labels, _ in estimators.cells()]
    assert {label["method"] for label in labels} == {
        "Gaussian, silent",
        "Gaussian, reparameterization",
        "Bernoulli, silent",
        "Bernoulli, Gumbel-Softmax",
        "Bernoulli, REINFORCE",
    }
    pairs = {tuple(labels.values()) for labels, _ in temperatures.cells()}
    assert {(t, t) for t, _ in pairs} <= pairs
    assert len(temperatures.seeds) == 2
    assert search.search is not None
    total = len(labels) + len(pairs) * 2 + search.search.members
    assert 55 <= total <= 70
