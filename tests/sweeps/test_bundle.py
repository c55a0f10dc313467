"""Bundles: what is exported equals the results, can be loaded, and nothing forged or damaged is."""

import dataclasses
import hashlib
import io
import json
import math
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from moto.server import ThreadedMotoServer
from scripted import GRID, SEARCH, result, row

import search_spaces
from search_spaces.space import Sweep, Winner
from sweeps.bundle import write
from sweeps.bundle.crate import METADATA
from sweeps.bundle.read import load_bundle
from sweeps.bundle.shared import shared_text
from sweeps.bundle.write import write_bundle
from sweeps.driver.driver import Driver
from sweeps.errors import UserError
from sweeps.export import export
from sweeps.load import load
from sweeps.planning import saved, sessions
from sweeps.planning.command import Command
from sweeps.planning.plan import Overrides, Plan
from sweeps.planning.unfold import unfold
from sweeps.records import ledger as ledger_files
from sweeps.records.ledger import Ledger, UnchangedLedger
from sweeps.records.lock import Lock
from sweeps.records.storage import Storage
from sweeps.report.write import write_outputs

TAKING = dataclasses.replace(GRID, name="taking/one", grid=GRID.grid[1:], takes=(Winner("grid", ("optim.lr",)),))
SWEEP = Sweep("small", "A small sweep", (dataclasses.replace(GRID, published="sg_table2"), TAKING, SEARCH))
HOME, PASSWORD, USER = "/home/somebody", "planted-password", "planted-user"
TRACEBACK = (
    f'Traceback (most recent call last):\n  File "{HOME}/my code/trainables/x.py", line 3, in f\n'
    f"OSError: no {HOME}/data/mnist at https://me:{PASSWORD}@host/x"
)


@pytest.fixture(scope="module", autouse=True)
def small():
    """Registers the sweep of these tests by its name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(saved, "find_sweep", lambda name, studies=None: {"small": SWEEP}[name])
        yield


def trained(place: Storage) -> None:
    """Does what a run does, without Ray; the members with one learning rate and seed fail."""
    plan = Plan(SWEEP, Overrides(confirm=2))
    place.prepare()
    saved.save_plan(place, plan.overrides)
    words = ("small", "--data-dir", f"{HOME}/data", "--tracking-uri", f"http://me:{PASSWORD}@{USER}.host:5000")
    with pytest.MonkeyPatch.context() as patch:
        environment = {"mlflow.user": USER, "version.torch": "2.9", "python": "3.11", "mlflow.source.git.commit": "ab"}
        patch.setattr(sessions, "environment", lambda: environment)
        sessions.record(place, plan.overrides, Command(words, f"{HOME}/project"))
    driver = Driver(plan, Ledger(place), retry_failed=False)
    driver.begin(slots=2, pack=None)
    while (cohort := driver.next()) is not None:
        failed = {"status": "failed", "reason": "error", "metrics": {}, "history": {}, "detail": TRACEBACK}
        driver.ended(
            cohort,
            [
                result(m, **(failed if (m.study, m.config.optim.lr, m.config.seed) == ("grid", 1e-3, 1) else {}))
                for m in cohort.members
            ],
        )
    write_outputs(place, driver.unfoldings, driver.current(), {}, drawn=False)


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Storage:
    place = Storage(str(tmp_path_factory.mktemp("original") / "runs"), "small")
    trained(place)
    return place


@pytest.fixture(scope="module")
def whole(original, tmp_path_factory) -> Path:
    """A bundle that no test changes."""
    folder = tmp_path_factory.mktemp("bundles") / "whole"
    write_bundle(original, folder, Path("data"))
    return folder


@pytest.fixture
def bundle(whole, tmp_path) -> Path:
    """A copy to change."""
    return Path(shutil.copytree(whole, tmp_path / "bundle"))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def entities(folder: Path) -> dict[str, dict]:
    return {entity["@id"]: entity for entity in json.loads((folder / METADATA).read_bytes())["@graph"]}


def describe_again(folder: Path) -> None:
    """Forges the description: every file that is there is listed as it is."""
    known = json.loads((folder / METADATA).read_bytes())
    rest = [entity for entity in known["@graph"] if entity["@type"] != "File"]
    files = [
        {"@id": path, "@type": "File", "contentSize": str(len(b)), "sha256": hashlib.sha256(b).hexdigest()}
        for path, b in contents(folder).items()
        if path != METADATA
    ]
    (folder / METADATA).write_text(json.dumps(known | {"@graph": rest + files}))


# --- what is written -------------------------------------------------------------------------------------------------


def test_a_bundle_has_the_results_of_the_storage(original, whole):
    root = original.local_path
    for name in ("results.parquet", "history.parquet"):
        pd.testing.assert_frame_equal(pd.read_parquet(whole / name), pd.read_parquet(root / name))
    results = pd.read_parquet(whole / "results.parquet")
    configurations = json.loads((whole / "configurations.json").read_bytes())
    assert configurations.keys() == set(results["key"])
    for record in results.to_dict("records"):
        assert configurations[record["key"]]["optim"]["lr"] == record["config.optim.lr"]
        assert configurations[record["key"]]["seed"] == record["seed"]
    tables = {path.name for path in (root / "report" / "tables").iterdir()}
    assert tables >= {"grid.csv", "grid.tex", "searched.csv"}
    for name in tables:
        assert (whole / "report" / "tables" / name).read_bytes() == (root / "report" / "tables" / name).read_bytes()
    assert list((whole / "report" / "figures").glob("searched-*.pdf"))


def test_a_bundle_has_versions_commits_commands_and_the_printed_numbers(whole):
    (run,) = json.loads((whole / "environment.json").read_bytes())
    assert run["command"] == "python -m sweeps.run small --data-dir DIR --tracking-uri URI"
    assert run["environment"] == {"version.torch": "2.9", "python": "3.11", "mlflow.source.git.commit": "ab"}
    printed = pd.read_csv(whole / "published.csv")
    assert set(printed["study"]) == {"grid"}
    file = Path(search_spaces.__file__).parent / "published" / "silent_gradients.toml"
    numbers = tomllib.loads(file.read_text())["tables"]["sg_table2"]["numbers"]
    assert list(printed["value"]) == [number["value"] for number in numbers]
    assert list(map(json.loads, printed["labels"])) == [number["labels"] for number in numbers]


def test_the_description_lists_every_file_with_its_size_and_hash(whole):
    found = {name: entity for name, entity in entities(whole).items() if entity["@type"] == "File"}
    files = contents(whole)
    del files[METADATA]
    assert found.keys() == files.keys()
    for path, content in files.items():
        assert found[path]["sha256"] == hashlib.sha256(content).hexdigest()
        assert int(found[path]["contentSize"]) == len(content)


def test_the_description_keeps_the_rules_of_ro_crate(whole):
    """Those of https://w3id.org/ro/crate/1.1: structure, root data entity, data entities, contextual entities."""
    document = json.loads((whole / METADATA).read_bytes())
    assert document["@context"][0] == "https://w3id.org/ro/crate/1.1/context"
    graph = document["@graph"]
    by_id = {entity["@id"]: entity for entity in graph}
    assert len(by_id) == len(graph), "each entity is there once"
    assert all(entity["@type"] for entity in graph)
    own = by_id["ro-crate-metadata.json"]
    assert own["@type"] == "CreativeWork"
    assert own["about"] == {"@id": "./"}
    assert own["conformsTo"] == {"@id": "https://w3id.org/ro/crate/1.1"}
    root = by_id["./"]
    assert root["@type"] == "Dataset"
    assert root["name"]
    assert root["description"]
    assert pd.Timestamp(root["datePublished"]).strftime("%Y-%m-%d") == root["datePublished"]
    assert by_id[root["license"]["@id"]]["name"]
    assert by_id[root["license"]["@id"]]["description"]
    files = {entity["@id"] for entity in graph if entity["@type"] == "File"}
    assert {part["@id"] for part in root["hasPart"]} == files
    referenced = [value["@id"] for entity in graph for value in _references(entity)]
    assert len(referenced) > len(files)
    assert {name for name in referenced if not name.startswith("https:")} <= by_id.keys()
    assert all(isinstance(value, str | list | dict) for entity in graph for value in entity.values()), "flattened"
    contextual = by_id.keys() - files - {"./", "ro-crate-metadata.json"}
    assert contextual <= set(referenced), "contextual entities are referred to"
    (action,) = (entity for entity in graph if entity["@type"] == "CreateAction")
    assert {by_id[each["@id"]]["name"] for each in action["instrument"]} == {"torch", "Python", "vae-sweeps"}


def _references(entity: dict) -> list[dict]:
    values = [each for value in entity.values() for each in (value if isinstance(value, list) else [value])]
    return [value for value in values if isinstance(value, dict)]


def test_nothing_private_is_in_a_bundle(original, whole):
    rows = UnchangedLedger(original).read().values()
    assert any(PASSWORD in (row.detail or "") for row in rows), "else this test looks for nothing"
    for path, content in contents(whole).items():
        text = (
            pq.read_table(io.BytesIO(content)).to_pandas().to_csv()
            if path.endswith(".parquet")
            else content.decode("latin-1")
        )
        for private in (HOME, PASSWORD, USER, "my code", str(original.local_path), str(Path.home())):
            assert private not in text, (private, path)


def test_texts_lose_paths_and_passwords_and_nothing_else():
    assert shared_text("a/b 1/2 https://host/a/b ~/x …") == "a/b 1/2 https://host/a/b ~/x …"
    assert shared_text("in /a/b c, (/d/e): '/f g/h'") == "in …/b c, (…/e): '…/h'"
    assert shared_text("folder:/a/b/c and s3://b/c/d") == "folder:…/c and s3://b/c/d"
    assert shared_text("sqlite:////a/b/c.db file:///a/b") == "sqlite://…/c.db file://…/b"
    assert shared_text("http://u:p@h/x") == "http://u:***@h/x"


def test_a_data_set_with_a_path_of_this_machine_is_told(tmp_path, caplog):
    place = Storage(str(tmp_path / "runs"), "small")
    saved.save_plan(place, Overrides(only="grid", values=(("data.name", "folder:/home/me/images"),)))
    write_bundle(place, tmp_path / "out", Path("data"))
    told = "The bundle has a path of this machine, which is part of configurations: folder:/home/me/images"
    assert caplog.messages == [told]


def test_exporting_twice_gives_the_same_bytes_but_for_the_date(original, whole, tmp_path):
    write_bundle(original, tmp_path / "again", Path("data"))
    first, second = contents(whole), contents(tmp_path / "again")
    assert first.keys() == second.keys()
    assert [path for path in first if first[path] != second[path] and path != METADATA] == []
    lines = [files[METADATA].decode().splitlines() for files in (first, second)]
    assert [a for a, b in zip(*lines, strict=True) if a != b and "datePublished" not in a] == []


def test_an_interrupted_export_leaves_nothing(original, tmp_path, monkeypatch):
    monkeypatch.setattr(write, "described", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        write_bundle(original, tmp_path / "out", Path("data"))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_exists_is_refused_in_one_line(original, tmp_path, command):
    (tmp_path / "out").mkdir()
    storage = str(original.local_path.parent)
    code, out, err = command(export, "small", "--storage", storage, "--out", "out")
    assert (code, out) == (2, "")
    assert err == "command: --out 'out' exists already; give the name of a new folder\n"
    assert list((tmp_path / "out").iterdir()) == []


def test_a_sweep_that_is_being_run_is_refused(original, tmp_path):
    with Lock(original), pytest.raises(UserError, match=r"is being run by .*; export it when the run has ended"):
        write_bundle(original, tmp_path / "out", Path("data"))


def test_a_damaged_file_of_the_ledger_is_left_out(original, tmp_path, caplog):
    shutil.copytree(original.local_path, tmp_path / "runs" / "small")
    place = Storage(str(tmp_path / "runs"), "small")
    damaged = sorted((place.local_path / "ledger").iterdir())[0]
    damaged.write_bytes(damaged.read_bytes()[:-9])
    write_bundle(place, tmp_path / "out", Path("data"))
    assert damaged.name in caplog.text
    assert not list((tmp_path / "out").rglob(damaged.name))
    assert load_bundle(tmp_path / "out", str(tmp_path / "new")).members < len(UnchangedLedger(original).read())


# --- what is loaded --------------------------------------------------------------------------------------------------


def report(place: Storage) -> dict[str, bytes]:
    """The tables and results that `sweeps.report` writes."""
    source = UnchangedLedger(place)
    write_outputs(place, unfold(saved.last_plan(place), source), source.read(), {}, drawn=False)
    paths = [*place.list("report/tables", ""), "results.parquet", "history.parquet"]
    return {path: place.read(path) for path in paths}


def test_a_loaded_sweep_has_nothing_left_to_train_and_the_same_report(original, bundle, tmp_path, command):
    code, out, err = command(load, "bundle", "--storage", "new runs")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        f"small: {len(UnchangedLedger(original).read())} members, "
        f"{len(UnchangedLedger(original).read())} of them new in new runs",
        "Next: python -m sweeps.status small --storage 'new runs'",
    ]
    place = Storage(str(tmp_path / "new runs"), "small")
    driver = Driver(saved.last_plan(place), Ledger(place), retry_failed=False)
    assert not driver.todo
    assert [m.key for m in driver.members()] == [
        m.key for m in saved.known_members(saved.last_plan(original), UnchangedLedger(original))
    ]
    assert report(place) == report(original)


def test_every_record_of_a_decision_is_in_the_bundle(original, whole):
    """Winners, finalists and suggestions, in their own words."""
    paths = [p for kind in ("choices", "suggestions") for p in original.list(kind, ".json", recursive=True)]
    assert {path.rpartition("/")[0].partition("/")[0] for path in paths} == {"choices", "suggestions"}
    sources = {json.loads(original.read(path))["from"] for path in paths if path.startswith("choices")}
    assert sources == {"grid", "taking/one", "searched"}, "finalists of each study, and a winner of the first"
    for path in paths:
        assert (whole / "storage" / "small" / path).read_bytes() == original.read(path)


def test_loading_again_changes_nothing(bundle, tmp_path):
    load_bundle(bundle, str(tmp_path / "new"))
    before = contents(tmp_path / "new")
    found = load_bundle(bundle, str(tmp_path / "new"))
    assert (found.new, found.kept) == (0, False)
    assert contents(tmp_path / "new") == before


def test_a_load_that_was_killed_goes_on(bundle, tmp_path, monkeypatch):
    written, working = [], Storage.write

    def killed(self, path, content):
        written.append(path)
        if path.startswith("suggestions"):
            raise KeyboardInterrupt
        working(self, path, content)

    with monkeypatch.context() as patch:
        patch.setattr(Storage, "write", killed)
        with pytest.raises(KeyboardInterrupt):
            load_bundle(bundle, str(tmp_path / "new"))
    assert "plan.json" not in written
    load_bundle(bundle, str(tmp_path / "new"))
    place = Storage(str(tmp_path / "new"), "small")
    assert not Driver(saved.last_plan(place), Ledger(place), retry_failed=False).todo


def test_the_original_storage_takes_its_own_bundle_and_keeps_its_plan(original, bundle, tmp_path):
    shutil.copytree(original.local_path, tmp_path / "runs" / "small")
    place = Storage(str(tmp_path / "runs"), "small")
    saved.save_plan(place, Overrides(only="grid"))
    before, rows = contents(place.local_path), UnchangedLedger(place).read()
    found = load_bundle(bundle, place.uri)
    assert (found.new, found.kept) == (0, True)
    after = contents(place.local_path)
    assert {path: after[path] for path in before} == before
    assert {key: (row.status, dict(row.metrics)) for key, row in UnchangedLedger(place).read().items()} == {
        key: (row.status, dict(row.metrics)) for key, row in rows.items()
    }


def test_another_result_of_a_member_is_refused_and_kept(original, bundle, tmp_path):
    member = Plan(SWEEP, Overrides()).members["grid"][0]
    place = Storage(str(tmp_path / "runs"), "small")
    place.prepare()
    Ledger(place).append([row(member, metrics={"bits_per_dim": 1.0})])
    before = contents(tmp_path / "runs")
    with pytest.raises(UserError, match=f"another result of member {member.key} of 'small'; load into another storage"):
        load_bundle(bundle, place.uri)
    assert contents(tmp_path / "runs") == before


def test_other_suggestions_are_refused(original, bundle, tmp_path):
    place = Storage(str(tmp_path / "runs"), "small")
    (path,) = [p for p in original.list("suggestions", ".json", recursive=True) if p.endswith("00001.json")]
    place.write(path, json.dumps({"format": 1, "suggestions": [{"optim.lr": 0.5}]}).encode())
    with pytest.raises(UserError, match=r"has another suggestions/searched/\w+/00001.json of 'small'"):
        load_bundle(bundle, place.uri)


def test_while_a_driver_is_at_work_nothing_is_loaded(bundle, tmp_path):
    place = Storage(str(tmp_path / "runs"), "small")
    place.prepare()
    with Lock(place), pytest.raises(UserError, match="is being run by"):
        load_bundle(bundle, place.uri)
    assert place.list("", ".parquet", recursive=True) == []


def some_ledger_file(folder: Path) -> Path:
    return sorted((folder / "storage" / "small" / "ledger").iterdir())[0]


def truncate(folder: Path) -> None:
    some_ledger_file(folder).write_bytes(some_ledger_file(folder).read_bytes()[:-1])


def change_a_byte(folder: Path) -> None:
    content = bytearray((folder / "results.parquet").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "results.parquet").write_bytes(content)


def remove(folder: Path) -> None:
    some_ledger_file(folder).unlink()


def add(folder: Path) -> None:
    (folder / "storage" / "small" / "extra.json").write_text("{}")


def add_and_list(folder: Path) -> None:
    add(folder)
    describe_again(folder)


def link(folder: Path) -> None:
    (folder / "published.csv").unlink()
    (folder / "published.csv").symlink_to("/etc/hostname")


def link_a_folder(folder: Path) -> None:
    (folder / "report").rename(folder.with_name("moved"))
    (folder / "report").symlink_to(folder.with_name("moved"))


def leave(folder: Path) -> None:
    (folder.parent / "outside.parquet").write_bytes(b"")
    known = json.loads((folder / METADATA).read_bytes())
    digest = {"contentSize": "0", "sha256": hashlib.sha256(b"").hexdigest()}
    known["@graph"].append({"@id": "storage/small/../../../outside.parquet", "@type": "File", **digest})
    (folder / METADATA).write_text(json.dumps(known))


def two_sweeps(folder: Path) -> None:
    shutil.copytree(folder / "storage" / "small", folder / "storage" / "other")
    describe_again(folder)


def other_name(folder: Path) -> None:
    (folder / "storage" / "small").rename(folder / "storage" / "..small")
    describe_again(folder)


def no_plan(folder: Path) -> None:
    (folder / "storage" / "small" / "plan.json").unlink()
    describe_again(folder)


def other_plan(folder: Path) -> None:
    (folder / "storage" / "small" / "plan.json").write_text('{"seeds": -1}')
    describe_again(folder)


def renamed_ledger(folder: Path) -> None:
    some_ledger_file(folder).rename(some_ledger_file(folder).with_name(f"{0:032x}.parquet"))
    describe_again(folder)


def foreign_parquet(folder: Path) -> None:
    content = (folder / "results.parquet").read_bytes()
    name = hashlib.sha256(content).hexdigest()[:32]
    (folder / "storage" / "small" / "ledger" / f"{name}.parquet").write_bytes(content)
    describe_again(folder)


def forged_row(folder: Path) -> None:
    """A file of the ledger with its right hash, and a row whose key is of another configuration."""
    members = Plan(SWEEP, Overrides()).members["grid"]
    path, content = ledger_files.encoded([dataclasses.replace(row(members[0]), key=members[1].key)])
    (folder / "storage" / "small" / path).write_bytes(content)
    describe_again(folder)


def no_description(folder: Path) -> None:
    (folder / METADATA).unlink()


def not_json(folder: Path) -> None:
    (folder / METADATA).write_text("{")


def deep_json(folder: Path) -> None:
    (folder / METADATA).write_text("[" * 100_000)


def no_hash(folder: Path) -> None:
    (folder / METADATA).write_text('{"@graph": [{"@id": "results.parquet", "@type": "File"}]}')


def no_folder(folder: Path) -> None:
    shutil.rmtree(folder)


ATTACKS: dict[Callable[[Path], None], str] = {
    truncate: "is damaged: storage/small/ledger/",
    change_a_byte: "is damaged: results.parquet is not as",
    remove: "is incomplete: it lacks storage/small/ledger/",
    add: "has 'storage/small/extra.json', which ro-crate-metadata.json does not list",
    add_and_list: "extra.json cannot be used (no record of a sweep has this name)",
    link: "which is a link or no file",
    link_a_folder: "which is a link or no file",
    leave: "lists 'storage/small/../../../outside.parquet', which is outside of the bundle",
    two_sweeps: "must have the records of one sweep",
    other_name: "must have the records of one sweep",
    no_plan: "must have the records of one sweep",
    other_plan: "plan.json cannot be used",
    renamed_ledger: "cannot be used (its content does not match its name)",
    foreign_parquet: "cannot be used (it is not a ledger file)",
    forged_row: "has another configuration",
    no_description: "has no ro-crate-metadata.json; give a folder that `sweeps.export` has written",
    not_json: "does not describe a bundle",
    deep_json: "does not describe a bundle",
    no_hash: "must give each file once, with contentSize and sha256",
    no_folder: "cannot be read: No such file or directory",
}


@pytest.mark.parametrize(("attack", "message"), ATTACKS.items(), ids=lambda each: getattr(each, "__name__", ""))
def test_damaged_and_forged_bundles_are_refused_in_one_line_and_nothing_is_written(
    attack, message, bundle, tmp_path, command
):
    attack(bundle)
    code, out, err = command(load, "bundle", "--storage", "new")
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_a_bundle_of_nan_is_equal_to_itself(tmp_path, original):
    """Metrics may be NaN, which is not equal to itself."""
    member = Plan(SWEEP, Overrides()).members["grid"][0]
    place = Storage(str(tmp_path / "runs"), "small")
    saved.save_plan(place, Overrides(only="grid"))
    Ledger(place).append([row(member, metrics={"bits_per_dim": math.nan})])
    write_bundle(place, tmp_path / "out", Path("data"))
    assert load_bundle(tmp_path / "out", place.uri).new == 0


def test_an_object_store_is_exported_and_loaded_into(original, whole, tmp_path, monkeypatch):
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "planted")
        options = f"scheme=http&endpoint_override={host}:{port}&region=us-east-1&allow_bucket_creation=true"
        uri = f"s3://bucket/runs?{options}"
        assert load_bundle(whole, uri).new == len(UnchangedLedger(original).read())
        write_bundle(Storage(uri, "small"), tmp_path / "out", Path("data"))
    finally:
        server.stop()
    mine, theirs = contents(tmp_path / "out"), contents(whole)
    records = [path for path in theirs if "ledger" in path or "tables" in path or path.startswith("configurations")]
    assert len(records) > 5
    assert {path: mine[path] for path in records} == {path: theirs[path] for path in records}
