import pytest

from search_spaces import get_sweep, list_sweeps
from search_spaces.published import FOLDER, Number, published, read

STUDIES = {study.name: study for name in list_sweeps() for study in get_sweep(name).studies if study.published}
HEAD = '[tables.t]\nsource = "A paper, Table 1"\nnumbers = ['


@pytest.fixture
def folder(tmp_path):
    """Reads tables from the text of one file."""

    def tables(text):
        (tmp_path / "paper.toml").write_text(text)
        return read(tmp_path)

    return tables


def test_a_number_has_the_source_of_its_table_unless_it_names_its_own(folder):
    first, second = folder(
        HEAD
        + '{labels = {method = "x", "optim.lr" = 0.1}, metric = "kl", value = 3, epoch = 2, stderr = 0.5, n = 4},'
        + '{labels = {method = "y"}, metric = "kl", value = 4, source = "A paper, section 2", note = "read off"}]'
    )["t"]
    assert first == Number(
        labels={"method": "x", "optim.lr": 0.1},
        metric="kl",
        value=3.0,
        epoch=2,
        stderr=0.5,
        n=4,
        source="A paper, Table 1",
    )
    assert (second.source, second.note) == ("A paper, section 2", "read off")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEAD + '{labels = {m = "x"}, metric = "kl", value = 3, unit = "nats"}]', r"t\.numbers\[0\]: unit"),
        (HEAD + '{labels = {m = "x"}, metric = "kl"}]', r"t\.numbers\[0\]: value"),
        (HEAD + '{labels = {m = "x"}, metric = "kl", value = "3"}]', "valid number"),
        (HEAD + '{labels = {m = "x"}, metric = "kl", value = nan}]', "finite"),
        (HEAD + '{labels = {m = ["x"]}, metric = "kl", value = 3}]', r"labels\.m"),
        (HEAD + '{labels = {m = "x"}, metric = "kl", value = 3, n = 0}]', "n: "),
        (HEAD + "3]", "entry"),
        (HEAD + '{labels = {}, metric = "kl", value = 3}, {labels = {}, metric = "kl", value = 4}]', "same labels"),
        (HEAD + ']\nnote = "x"', "'source' and 'numbers'"),
        ("[tables]\nt = 3", "'source' and 'numbers'"),
        ("[numbers]", "tables.NAME"),
        ("tables", "Expected '='"),
    ],
)
def test_what_is_not_as_it_should_be_is_told_with_its_place(folder, text, message):
    with pytest.raises(ValueError, match=message) as error:
        folder(text)
    assert str(error.value).startswith("paper.toml: ")


def test_a_name_belongs_to_one_table(folder, tmp_path):
    (tmp_path / "other.toml").write_text(HEAD + "]")
    with pytest.raises(ValueError, match=r"another file has a table 't'"):
        folder(HEAD + "]")


def test_an_unknown_table_is_told_with_those_there_are():
    with pytest.raises(KeyError, match=r"sg_table9.*sg_table2"):
        published("sg_table9")


@pytest.mark.parametrize("name", STUDIES)
def test_every_number_belongs_to_a_row_of_its_study(name):
    study = STUDIES[name]
    rows = [labels for labels, _ in study.cells()]
    numbers = published(study.published)
    assert numbers
    for number in numbers:
        assert set(number.labels) <= set(study.compare), number
        assert any(number.labels.items() <= row.items() for row in rows), number
        assert number.metric in study.columns, number


def test_no_table_is_left_out():
    assert {study.published for study in STUDIES.values()} >= {name for name in read(FOLDER) if name.startswith("sg_")}


def value(table, metric, epoch=None, **labels):
    (number,) = [
        n
        for n in published(table)
        if (n.metric, n.epoch) == (metric, epoch) and {k: v for k, v in n.labels.items() if k in labels} == labels
    ]
    return number.value


def test_numbers_are_those_of_silent_gradients():
    assert value("sg_table1", "gradient_variance", 10, method="Reparameterization") == 1.08e5
    assert value("sg_table1", "gradient_variance", 200, method="Gumbel-Softmax") == 2.08e5
    assert value("sg_table1", "gradient_variance", 500, method="REINFORCE") == 4.00e7
    assert value("sg_table1", "gradient_variance", 500, method="Silent Gradients, discrete") == 0
    assert value("sg_table2", "bits_per_dim", method="Silent Gradients, continuous") == 6.718
    assert value("sg_table2", "mse", method="REINFORCE") == 9.289
    assert value("sg_table2", "bits_per_dim", 90, method="Reparameterization") == 6.73
    assert value("sg_table3_mnist", "bits_per_dim", method="Reparameterization", sg="w/ SG") == 1.80
    assert value("sg_table3_mnist", "kl", method="Silent Gradients, continuous", sg="w/ SG") == 330.77
    assert value("sg_table3_imagenet32", "bits_per_dim", method="REINFORCE", sg="w/o SG") == 6.87
    assert value("sg_table3_imagenet32", "kl", method="Silent Gradients, discrete", sg="w/ SG") == 534.29
    assert value("sg_table3_cifar10", "bits_per_dim", method="Gumbel-Softmax", sg="w/ SG") == 6.19
    assert value("sg_table3_cifar10", "kl", method="REINFORCE", sg="w/o SG") == 303.33


def test_counts_are_those_of_the_tables():
    names = ("sg_table1", "sg_table2", "sg_table3_mnist", "sg_table3_imagenet32", "sg_table3_cifar10")
    # Table 2 with the two epochs of section 3.2; Tables 3 and 4 have eight numbers a data set each.
    assert [len(published(name)) for name in names] == [15, 10 + 2, 16, 16, 16]
