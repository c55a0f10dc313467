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
        (
            HEAD + '{labels = {m = "x"}, metric = "kl", value = 3, unit = "nats"}]',
            r"tables\.t\.numbers\.0\.unit: Unexpected",
        ),
        (HEAD + '{labels = {m = "x"}, metric = "kl"}]', r"tables\.t\.numbers\.0\.value: Field required"),
        (HEAD + '{labels = {m = "x"}, metric = "kl", value = "3"}]', "valid number"),
        (HEAD + '{labels = {m = "x"}, metric = "kl", value = nan}]', "finite"),
        (HEAD + '{labels = {m = ["x"]}, metric = "kl", value = 3}]', r"labels\.m"),
        (HEAD + '{labels = {m = "x"}, metric = "kl", value = 3, n = 0}]', "n: "),
        (HEAD + "3]", r"tables\.t\.numbers\.0: "),
        (HEAD + '{labels = {}, metric = "kl", value = 3}, {labels = {}, metric = "kl", value = 4}]', "same labels"),
        (HEAD + ']\nnote = "x"', r"tables\.t\.note: Unexpected"),
        ("[tables.t]\nnumbers = []", r"tables\.t\.source: Field required"),
        ("[tables]\nt = 3", r"tables\.t: "),
        ("[numbers]", "tables: Field required; numbers: Unexpected"),
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


# --- Every number of Silent Gradients, against the printed tables ----------------------------------------------------

TABLE_1 = """
Silent Gradients	0	0	0
Reparameterization	1.08×10^5	1.78×10^4	1.37×10^4
Silent Gradients	0	0	0
Gumbel-Softmax	1.10×10^5	2.08×10^5	1.68×10^5
REINFORCE	2.30×10^8	6.30×10^7	4.00×10^7
"""
TABLE_2 = """
Silent Gradients	6.718	3.011
Reparameterization	6.722	3.059
Silent Gradients	6.900	6.103
Gumbel-Softmax	6.990	7.670
REINFORCE	7.208	9.289
"""
TABLE_3 = """
None	–	2.41	–	5.98	–	5.82
Reparameterization	1.91	1.80	5.79	5.69	5.70	5.53
None	–	2.77	–	6.45	–	6.72
Gumbel-Softmax	2.48	2.37	6.31	6.20	6.22	6.19
REINFORCE	2.96	2.94	6.87	6.77	6.74	6.67
"""
TABLE_4 = """
None	–	330.77	–	478.43	–	550.70
Reparameterization	155.15	165.76	382.87	533.20	427.79	577.25
None	–	91.82	–	534.29	–	243.69
Gumbel-Softmax	94.64	96.24	368.02	404.57	446.75	442.58
REINFORCE	109.67	128.55	294.88	381.27	303.33	367.10
"""
METHODS = (
    "Silent Gradients, continuous",
    "Reparameterization",
    "Silent Gradients, discrete",
    "Gumbel-Softmax",
    "REINFORCE",
)
"""The rows of all four tables. The latents distinguish rows that the paper calls "None" or "Silent Gradients"."""


def rows(printed):
    """(method, numbers) of each row of a printed table; None for a dash."""
    for method, line in zip(METHODS, printed.strip().splitlines(), strict=True):
        name, *cells = line.split("\t")
        assert method.startswith(name if name != "None" else "Silent Gradients")
        yield method, [None if cell == "–" else float(cell.replace("×10^", "e")) for cell in cells]


def transcribed(table):
    """Every number of a table by (metric, epoch, method, with or without SG)."""
    numbers = published(table)
    by_place = {(n.metric, n.epoch, n.labels["method"], n.labels.get("sg")): n.value for n in numbers}
    assert len(by_place) == len(numbers)
    return by_place


def test_table_1_is_as_printed():
    expected = {
        ("gradient_variance", epoch, method, None): value
        for method, values in rows(TABLE_1)
        for epoch, value in zip((10, 200, 500), values, strict=True)
    }
    assert len(expected) == 15
    assert transcribed("sg_table1") == expected


def test_table_2_is_as_printed_with_the_two_epochs_of_section_3_2():
    expected = {
        (metric, None, method, None): value
        for method, values in rows(TABLE_2)
        for metric, value in zip(("bits_per_dim", "mse"), values, strict=True)
    }
    expected |= {
        ("bits_per_dim", 45, "Silent Gradients, continuous", None): 6.73,
        ("bits_per_dim", 90, "Reparameterization", None): 6.73,
    }
    assert len(expected) == 12
    assert transcribed("sg_table2") == expected


@pytest.mark.parametrize(("position", "data_set"), [(0, "mnist"), (1, "imagenet32"), (2, "cifar10")])
def test_tables_3_and_4_are_as_printed(position, data_set):
    expected = {
        (metric, None, method, sg): value
        for metric, printed in (("bits_per_dim", TABLE_3), ("kl", TABLE_4))
        for method, values in rows(printed)
        for sg, value in zip(("w/o SG", "w/ SG"), values[2 * position : 2 * position + 2], strict=True)
        if value is not None
    }
    assert len(expected) == 16
    assert transcribed(f"sg_table3_{data_set}") == expected
    sources = {n.metric: n.source for n in published(f"sg_table3_{data_set}")}
    assert sources == {"bits_per_dim": "Silent Gradients, Table 3", "kl": "Silent Gradients, Table 4"}
