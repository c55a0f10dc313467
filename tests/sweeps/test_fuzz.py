"""Any input and any files: exit code 0 or 2, one line, nothing written elsewhere, nothing executed."""

import json
import socket
import string
import sys
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from search_spaces import get_sweep, list_sweeps
from sweeps.planning import saved
from sweeps.planning.plan import Overrides, Plan
from sweeps.planning.search import CellSearch
from sweeps.records.ledger import Ledger
from sweeps.records.storage import Storage
from sweeps.report.__main__ import report
from sweeps.run import run
from sweeps.status import status

fuzz = settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)

FORBIDDEN = {"os.system", "os.exec", "os.fork", "os.posix_spawn", "subprocess.Popen", "pickle.find_class"}
executed: list[str] = []
sys.addaudithook(lambda event, _: executed.append(event) if event in FORBIDDEN else None)

HOSTILE = [
    "__import__('os').system('touch pwned')",
    "$(touch pwned)",
    "!!python/object/apply:os.system ['touch pwned']",
    "{{ self.__init__.__globals__ }}",
    "../../pwned",
    "/etc/passwd",
    "\udcff",
    "-",
    "nan",
    "1e999",
    "[" * 2000,
]
words = st.sampled_from(HOSTILE) | st.text(
    st.characters(exclude_characters="\0", exclude_categories=()) | st.sampled_from(string.punctuation), max_size=12
).filter(lambda text: all(not 0xD800 <= ord(c) < 0xDC80 and not 0xDCFF < ord(c) < 0xE000 for c in text))
fields = st.sampled_from(["epochs", "optim.lr", "estimator.name", "data.name", "latent.size", "encoder.hidden", "seed"])
values = words | st.recursive(
    st.none() | st.booleans() | st.integers(-3, 10**6) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
).map(json.dumps)


def tree(folder: Path) -> dict[str, bytes | None]:
    """All paths in a folder, with the content of files."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.fixture
def harmless(command, tmp_path):
    """Runs a command; asserts that it succeeds or prints one line on stderr, and that it changes no file."""

    def call(function, *arguments: str) -> int:
        before = tree(tmp_path)
        executed.clear()
        code, out, err = command(function, *arguments)
        assert code in (0, 2), err
        assert code == 0 or (err.count("\n") == 1 and out == "")
        assert "Traceback" not in out + err
        assert executed == []
        assert tree(tmp_path) == before
        return code

    return call


@pytest.fixture
def quickstart(tmp_path) -> Storage:
    """The folder of a sweep that was started, in the default place of storages."""
    place = Storage(str(tmp_path / "runs"), "quickstart")
    place.prepare()
    plan = Plan(saved.find_sweep("quickstart"), Overrides())
    saved.save_plan(place, plan.overrides)
    return place


def test_the_audit_hook_notices_execution():
    import subprocess

    executed.clear()
    subprocess.run(["true"], check=True)
    assert "subprocess.Popen" in executed


@fuzz
@given(fields | words, values)
@example("epochs", "5")
@example("optim.lr", "[" * 2000)
@example("seed", "9" * 5000)
def test_settings(harmless, field, value):
    harmless(run, "quickstart", "--plan", "--set", f"{field}={value}")


@fuzz
@given(st.lists(words, max_size=2))
@example(["epochs"])
def test_settings_of_any_form(harmless, texts):
    harmless(run, "quickstart", "--plan", *(word for text in texts for word in ("--set", text)))


@fuzz
@given(words)
def test_sweep_names(harmless, name):
    # --plan trains nothing: hypothesis takes strings from the code, and so also names of sweeps.
    assert harmless(run, "--plan", "--", name) == (0 if name in list_sweeps() else 2)
    for function in (report, status):
        assert harmless(function, "--", name) == 2


@fuzz
@given(words | st.text("*?[]!-aes", max_size=8))
@example("*")
def test_patterns_of_studies(harmless, pattern):
    known = any(fnmatchcase(study.name, pattern or "*") for study in get_sweep("quickstart").studies)
    assert harmless(run, "quickstart", "--plan", "--only", pattern) == (0 if known else 2)


@fuzz
@given(words, st.sampled_from(["", "file://", "file:///", "mock://", "nosuch://", "./", "../"]))
@example("runs/../x", "")
@example("x" * 300, "")
def test_storages(harmless, place, scheme):
    for function, arguments in ((run, ("--plan",)), (report, ()), (status, ())):
        harmless(function, "quickstart", *arguments, "--storage", scheme + place)


@fuzz
@given(st.binary(max_size=40) | values.map(lambda text: text.encode(errors="surrogateescape")))
@example(b'{"only": null, "values": [["optim.lr", 0.001]], "seeds": 2}')
@example(b'{"only": 3, "values": [], "seeds": null}')
@example(b'{"only": null, "values": [], "seeds": 0}')
@example(b'{"only": null, "values": [["a"]], "seeds": null}')
def test_saved_plans(harmless, quickstart, content):
    quickstart.write("plan.json", content)
    assert harmless(status, "quickstart") == harmless(status, "quickstart", "--json")


def test_a_damaged_plan_is_told_with_what_to_do(command, quickstart):
    quickstart.write("plan.json", b"{")
    for function in (status, report):
        code, _, err = command(function, "quickstart")
        assert code == 2
        assert "damaged" in err
        assert "python -m sweeps.run quickstart" in err


@fuzz
@given(st.binary(max_size=200))
def test_results_that_were_overwritten(command, quickstart, content):
    (quickstart.local_path / "results.parquet").write_bytes(content)
    code, _, err = command(report, "quickstart")
    assert (code, err) == (0, "")


def suggestions_folder(storage: Storage) -> Path:
    """The folder of the searched study's suggestions, found by making some."""
    plan = saved.last_plan(storage)
    (study,) = (study for study in plan.studies if study.search)
    CellSearch(plan, plan.cells(study)[0], Ledger(storage)).next_batch({})
    (path,) = storage.local_path.glob("suggestions/**/00000.json")
    path.unlink()
    return path.parent


suggestions = st.fixed_dictionaries(
    {"suggestions": st.lists(st.dictionaries(fields | st.text(max_size=5), st.integers() | st.floats(), max_size=2))}
).map(lambda value: json.dumps(value).encode())


@pytest.mark.parametrize("lr", [100.0, -1.0, None])
def test_a_suggestion_out_of_its_range_is_told_with_what_to_do(command, quickstart, lr):
    folder = suggestions_folder(quickstart)
    plan = saved.last_plan(quickstart)
    (study,) = (study for study in plan.studies if study.search)
    CellSearch(plan, plan.cells(study)[0], Ledger(quickstart)).next_batch({})
    path = folder / "00000.json"
    recorded = json.loads(path.read_bytes())
    assert recorded["suggestions"][0].keys() >= {"optim.lr"}
    recorded["suggestions"][0]["optim.lr"] = lr
    path.write_text(json.dumps(recorded))
    code, _, err = command(status, "quickstart")
    assert (code, err.count("\n")) == (2, 1)
    assert f"delete suggestions/{study.name}/" in err
    path.unlink()


@fuzz
@given(st.sampled_from(["00000.json", "00001.json", "x.json"]), st.binary(max_size=40) | suggestions)
@example("00000.json", b'{"suggestions": [{}]}')
@example("00000.json", b'{"suggestions": [[]]}')
@example("00000.json", b"[]")
@example("00000.json", b"null")
@example("00000.json", b'{"suggestions": 3}')
def test_suggestions(harmless, quickstart, name, content):
    path = suggestions_folder(quickstart) / name
    path.write_bytes(content)
    harmless(status, "quickstart")
    path.unlink()


@fuzz
@given(st.binary(max_size=100))
def test_ledger_files(harmless, command, quickstart, content):
    (quickstart.local_path / "ledger").mkdir(exist_ok=True)
    (quickstart.local_path / "ledger" / "x.parquet").write_bytes(content)
    assert harmless(status, "quickstart") == 0
    _, out, _ = command(status, "quickstart")
    assert "x.parquet" in out
    assert harmless(run, "quickstart", "--plan") == 0


@fuzz
@given(st.binary(max_size=40) | values.map(lambda text: text.encode(errors="surrogateescape")))
@example(b'{"host": "HERE", "pid": -1, "started_s": 0, "since": "", "token": ""}')
@example(b'{"host": "HERE", "pid": 99999999999999999999, "started_s": 0, "since": "", "token": ""}')
@example(b'{"host": "HERE", "pid": "x", "started_s": null, "since": [], "token": {}}')
@example(b'{"host": "\\u001b[2J", "pid": 1, "started_s": 0, "since": "", "token": ""}')
def test_locks(harmless, quickstart, content):
    quickstart.write("lock.json", content.replace(b"HERE", socket.gethostname().encode()))
    assert harmless(status, "quickstart") == 0
