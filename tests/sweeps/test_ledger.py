import logging
import threading
from datetime import timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scripted import SMALL, row

from sweeps.errors import UserError
from sweeps.planning.plan import Plan
from sweeps.records import ledger as ledgers
from sweeps.records import parquet
from sweeps.records.ledger import now

MEMBERS = Plan(SMALL).members["grid"]


def files(storage):
    return sorted((storage.local_path / "ledger").glob("*.parquet"))


def test_rows_come_back_as_they_were(ledger):
    rows = [
        row(MEMBERS[0]),
        row(MEMBERS[1], status="failed", reason="error", detail="Traceback …", metrics={}, history={"elbo": [1.0]}),
    ]
    ledger.append(rows)
    assert ledger.read() == {r.key: r for r in rows}


def test_writing_twice_is_writing_once(ledger, storage):
    rows = [row(MEMBERS[0])]
    ledger.append(rows)
    ledger.append(rows)
    assert len(files(storage)) == 1


def test_metrics_are_read_under_their_present_names(ledger):
    written = row(
        MEMBERS[0],
        metrics={"elbo": 1.0, "gradient_bias": 0.5, "gradient_std": 0.25},
        history={"elbo": [1.0, 2.0], "gradient_std": [0.75, 0.25]},
    )
    ledger.append([written])
    (read,) = ledger.read().values()
    assert read.metrics == {"elbo": 1.0, "gradient_bias_over_exact": 0.5, "gradient_spread_over_exact": 0.25}
    assert dict(read.history) == {"elbo": [1.0, 2.0], "gradient_spread_over_exact": [0.75, 0.25]}


@pytest.mark.parametrize("order", [1, -1])
def test_a_finish_counts_over_a_failure_and_the_latest_failure_over_the_first(ledger, order):
    first = row(MEMBERS[0], status="failed", reason="diverged")
    later = row(MEMBERS[0], status="failed", reason="error", ended=now() + timedelta(hours=1))
    for one in (first, later)[::order]:
        ledger.append([one])
    assert ledger.read()[MEMBERS[0].key].reason == "error"
    finished = row(MEMBERS[0], ended=now() - timedelta(hours=1))
    ledger.append([finished])
    assert ledger.read()[MEMBERS[0].key].status == "finished"


def test_unreadable_files_are_named_set_aside_and_do_not_count(ledger, storage, caplog):
    ledger.append([row(MEMBERS[0])])
    ledger.append([row(MEMBERS[1])])
    victim = files(storage)[0]
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 0xFF
    victim.write_bytes(bytes(content))
    (storage.local_path / "ledger" / "foreign.parquet").write_bytes(b"not parquet")
    pq.write_table(pa.table({"x": [1]}), storage.local_path / "ledger" / "other.parquet")
    with caplog.at_level(logging.WARNING):
        assert len(ledger.read()) == 1
    for name in (victim.name, "foreign.parquet", "other.parquet"):
        assert name in caplog.text
        assert (storage.local_path / "ledger" / "set_aside" / name).exists()
    assert len(ledger.read()) == 1


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 10_000), st.integers(1, 255), st.booleans())
def test_any_damage_is_noticed_and_crashes_nothing(ledger, storage, position, flip, truncate):
    ledger.append([row(MEMBERS[0])])
    file = files(storage)[0]
    content = bytearray(file.read_bytes())
    position %= len(content)
    if truncate:
        del content[position:]
    else:
        content[position] ^= flip
    file.write_bytes(bytes(content))
    assert ledger.read() == {}
    for path in files(storage):
        path.unlink()


def forge(storage, **changes) -> str:
    """Writes a file of the ledger of one row with changed values, under the name of its content; returns the name."""
    values = vars(row(MEMBERS[0])) | {"detail": None, "config": "{}", "history": {"elbo": [1.0]}} | changes
    columns = {name: [values[name]] for name in ledgers._SCHEMA.names}
    if isinstance(values["ended"], int):
        columns["ended"] = pa.array(columns["ended"], pa.int64()).cast(pa.timestamp("us", "UTC"))
    content = parquet.encoded(pa.table(columns, schema=ledgers._SCHEMA))
    storage.write(f"ledger/{ledgers._name(content)}", content)
    return ledgers._name(content)


def test_a_forged_row_of_valid_values_counts(ledger, storage):
    forge(storage)
    assert ledger.read().keys() == {MEMBERS[0].key}


@pytest.mark.parametrize(
    "changes",
    [
        {"ended": None},
        {"ended": 2**62},
        {"ended": -(2**62)},
        {"ended": 253_402_300_799_999_999},  # the last microsecond of the year 9999
        {"ended": 0},
        {"key": None},
        {"status": None},
        {"epochs": None},
        {"epochs": -1},
        {"wall_s": None},
        {"wall_s": float("nan")},
        {"wall_s": float("inf")},
        {"wall_s": -1.0},
        {"metrics": None},
        {"metrics": {"elbo": None}},
    ],
    ids=str,
)
def test_rows_with_values_missing_or_out_of_range_are_set_aside(ledger, storage, caplog, changes):
    name = forge(storage, **changes)
    ledger.append([row(MEMBERS[1])])
    with caplog.at_level(logging.WARNING):
        assert ledger.read().keys() == {MEMBERS[1].key}
    assert name in caplog.text
    assert (storage.local_path / "ledger" / "set_aside" / name).exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"config": None},
        {"config": "["},
        {"config": "[" * 100_000},
        {"config": "3"},
        {"history": None},
        {"history": {"elbo": None}},
        {"history": {"elbo": [None]}},
        {"history": {"elbo": [1.0], "kl": []}},
    ],
    ids=lambda changes: str(changes)[:40],
)
def test_a_damaged_configuration_or_history_is_one_line_that_names_the_file(ledger, storage, changes):
    name = forge(storage, **changes)
    (read,) = ledger.read().values()
    (column,) = changes
    with pytest.raises(UserError, match=f"{name}.*delete the file, and the same command trains its members") as error:
        dict(getattr(read, column))
    assert "\n" not in str(error.value)


DEEP = b'{"suggestions": ' + b"[" * 100_000


@pytest.mark.parametrize("content", [DEEP, b"[" * 100_000, b'{"values": [[1, 2]]}', b'{"values": 3}', b"\xff"])
def test_nested_or_foreign_json_is_set_aside_or_ignored(ledger, storage, content):
    for path in ("suggestions/a/00000.json", "choices/a/b.json", "cohorts/c.json"):
        storage.write(path, content)
    assert ledger.suggestions("a") == []
    assert ledger.choice("a/b") is None
    assert ledger.begun_cohorts(lambda key: False) == []
    assert storage.list("suggestions/a/set_aside", ".json")
    assert storage.list("choices/a/set_aside", ".json")


def test_a_ledger_that_is_only_read_changes_nothing(ledger, storage, caplog):
    ledger.append([row(MEMBERS[0])])
    for path in ("ledger/x.parquet", "suggestions/a/00000.json", "choices/a/b.json"):
        storage.write(path, DEEP)
    ledger.begin_cohort("c", [MEMBERS[0].key])
    before = sorted(storage.local_path.rglob("*"))
    unchanged = ledgers.UnchangedLedger(storage)
    with caplog.at_level(logging.WARNING):
        assert unchanged.read().keys() == {MEMBERS[0].key}
        assert unchanged.suggestions("a") == []
        assert unchanged.choice("a/b") is None
        unchanged.begun_cohorts(lambda key: False)
    assert sorted(storage.local_path.rglob("*")) == before
    assert unchanged.damaged == ["ledger/x.parquet", "suggestions/a/00000.json", "choices/a/b.json"]
    assert len(caplog.messages) == 3
    assert "ledger/x.parquet is not readable" in caplog.messages[0]


def test_what_cannot_be_set_aside_is_one_line(ledger, storage, monkeypatch):
    storage.write("ledger/x.parquet", b"x")

    class ReadOnly:
        def __getattr__(self, name):
            raise OSError("Read-only file system")

    monkeypatch.setattr(storage, "read", lambda path: b"x")
    monkeypatch.setattr(storage, "list", lambda *_: ["ledger/x.parquet"])
    monkeypatch.setattr(storage, "_fs", ReadOnly())
    with pytest.raises(UserError, match=r"cannot write to --storage .*Read-only file system"):
        ledger.read()


def test_a_newer_format_is_refused_with_what_to_do(ledger, storage):
    ledger.append([row(MEMBERS[0])])
    file = files(storage)[0]
    table = pq.read_table(file)
    pq.write_table(table.replace_schema_metadata({"vae_sweeps_ledger": "999"}), file)
    with pytest.raises(UserError, match=r"999.*update"):
        ledger.read()


def test_suggestions_come_back_in_their_batches(ledger):
    ledger.record_suggestions("a/b", 0, [{"x": 1.5}, {"x": 2.5}])
    ledger.record_suggestions("a/b", 1, [{"x": 3.5}])
    assert ledger.suggestions("a/b") == [[{"x": 1.5}, {"x": 2.5}], [{"x": 3.5}]]
    assert ledger.suggestions("a") == []


def test_an_error_of_the_storage_sets_nothing_aside(ledger, storage, monkeypatch):
    ledger.append([row(MEMBERS[0])])

    def unreachable(path):
        raise OSError("the network is down")

    with monkeypatch.context() as patch:
        patch.setattr(storage, "read", unreachable)
        with pytest.raises(OSError, match="the network is down"):
            ledger.read()
    assert ledger.read().keys() == {MEMBERS[0].key}


def test_what_is_appended_is_returned_as_it_is_read(ledger):
    rows = [row(MEMBERS[0]), row(MEMBERS[1], status="failed", reason="diverged", metrics={}, history={})]
    assert ledger.append(rows) == rows == list(ledger.read().values())


def test_rows_that_were_read_are_recorded_again_as_they_are(ledger, storage):
    """Copying rows into another ledger needs this."""
    ledger.append([row(MEMBERS[0])])
    before = files(storage)
    ledger.append(list(ledger.read().values()))
    assert files(storage) == before


def test_histories_and_configurations_are_decoded_only_for_those_who_ask(ledger, monkeypatch):
    decoded = []
    decode = pq.ParquetFile.read

    def spy(self, columns, **options):
        decoded.extend(columns)
        return decode(self, columns=columns, **options)

    rows = [row(member) for member in MEMBERS[:3]]
    ledger.append(rows)
    monkeypatch.setattr(pq.ParquetFile, "read", spy)
    read = ledger.read()
    assert {*decoded} == {"key", "status", "reason", "detail", "epochs", "wall_s", "ended", "metrics"}
    decoded.clear()
    for written in rows:
        assert read[written.key].history == written.history
        assert read[written.key].config == written.config
    assert sorted(decoded) == ["config", "history"], "once a file"


def test_files_are_requested_at_the_same_time(ledger, storage, monkeypatch):
    """On an object store a request mostly waits."""
    for member in MEMBERS[:3]:
        ledger.append([row(member)])
    together, read = threading.Barrier(3, timeout=30), storage.read

    def waiting(path):
        together.wait()
        return read(path)

    monkeypatch.setattr(storage, "read", waiting)
    assert ledger.read().keys() == {member.key for member in MEMBERS[:3]}
