"""Files that cannot be used, names that two files have, and studies in a folder of one's own."""

import importlib
import re
import sys
from pathlib import Path

import pytest

import search_spaces
from search_spaces import UnknownSweep, get_sweep, list_sweeps
from search_spaces.catalogue import known_sweeps

STUDY = """
from search_spaces.space import Axis, Study, Sweep

SWEEPS = (Sweep("NAME", "A title", (Study(name="s", title="S", source="x", base={"epochs": 1}),)),)
"""
UNUSABLE = [
    ("SWEEPS = (", r"SyntaxError: .*\(bad\.py, line 1\)"),
    ("\nimport no_such_module", r"ModuleNotFoundError: No module named 'no_such_module' \(bad\.py, line 2\)"),
    ("raise ValueError('two\\nlines')", r"ValueError: two lines \(bad\.py, line 1\)"),
    ("import sys\nsys.exit(3)", r"SystemExit: 3 \(bad\.py, line 2\)"),
    (
        STUDY.replace('name="s"', 'name="Two words"'),
        r"name may have lower-case .*'Two words' \(bad\.py, line 4\)",
    ),
    (
        STUDY.replace('base={"epochs": 1}', "base={}, seeds=(3)"),
        r"study 's': seeds must be a tuple; .*seeds=\(entry,\)",
    ),
    (STUDY.replace('base={"epochs": 1}', 'base={}, grid=(Axis("a", (1,)))'), "study 's': grid must be a tuple"),
    (STUDY.replace('base={"epochs": 1}', 'base={}, compare=("a")'), "study 's': compare must be a tuple"),
    (STUDY.replace('base={"epochs": 1}', 'base={}, grid=(Axis("a", (1)),)'), "axis a: values must be a tuple"),
    (STUDY.replace("NAME", "my-own"), "'my-own': a hyphen is for reduced and searched sweeps"),
    (STUDY.replace('"NAME", "A title", (', '"NAME", "A title", Study('), r"TypeError: "),
    (STUDY.replace("NAME", "own").replace(")),)", ")))"), "SWEEPS must be a tuple of Sweep"),
    ("SWEEPS = ('quickstart',)", "SWEEPS must be a tuple of Sweep"),
]


@pytest.fixture(autouse=True)
def anew():
    known_sweeps()  # imports the files of the package
    path, modules = list(sys.path), set(sys.modules)
    known_sweeps.cache_clear()
    yield
    known_sweeps.cache_clear()
    sys.path[:] = path
    for name in [
        new for new in set(sys.modules) - modules if new.startswith(("search_spaces.", "studies.", "shared_"))
    ]:
        del sys.modules[name]


@pytest.fixture(params=["in the package", "in a folder of one's own"])
def place(request, tmp_path, monkeypatch) -> Path | None:
    """A new folder as part of the package, or as the user's own; returns what `get_sweep` needs to find it."""
    if request.param == "in a folder of one's own":
        return tmp_path
    monkeypatch.setattr(search_spaces, "__path__", [*search_spaces.__path__, str(tmp_path)])
    importlib.invalidate_caches()
    return None


@pytest.mark.parametrize(("text", "said"), UNUSABLE)
def test_a_file_that_cannot_be_used_is_named_and_the_others_stay(place, tmp_path, caplog, text, said):
    others = list_sweeps()
    known_sweeps.cache_clear()
    bad, good = tmp_path / "bad.py", tmp_path / "good.py"
    bad.write_text(text, encoding="utf-8")
    good.write_text(STUDY.replace("NAME", "good"), encoding="utf-8")
    assert list_sweeps(place) == sorted([*others, "good"])
    assert get_sweep("good", place).studies[0].name == "s"
    assert get_sweep("quickstart", place).name == "quickstart"
    (record,) = caplog.records
    assert re.match(rf"{re.escape(str(bad))} cannot be used, so its sweeps are missing: .*{said}", record.getMessage())
    assert "\n" not in record.getMessage()
    with pytest.raises(UnknownSweep) as raised:
        get_sweep("mine", place)
    assert f"unknown sweep 'mine'; it may be in {bad}, which cannot be used; known: " in str(raised.value)


def test_without_such_files_the_message_of_an_unknown_name_lists_the_known_ones(tmp_path):
    (tmp_path / "good.py").write_text(STUDY.replace("NAME", "good"))
    with pytest.raises(UnknownSweep) as raised:
        get_sweep("mine", tmp_path)
    assert str(raised.value) == f"unknown sweep 'mine'; known: {', '.join(sorted([*list_sweeps(), 'good']))}"


@pytest.mark.parametrize("name", ["quickstart", "twice"])
def test_a_name_that_two_files_use_is_refused_with_both(place, tmp_path, caplog, name):
    for file in ("a.py", "b.py") if name == "twice" else ("b.py",):
        (tmp_path / file).write_text(STUDY.replace("NAME", name))
    one = tmp_path / "a.py" if name == "twice" else Path(search_spaces.__file__).with_name("quickstart.py")
    with pytest.raises(UnknownSweep) as raised:
        get_sweep(name, place)
    assert (
        str(raised.value) == f"two sweeps are named '{name}', in {one} and in {tmp_path / 'b.py'}; rename one of them"
    )
    assert name not in list_sweeps(place)
    assert "paper_grid" in list_sweeps(place)
    (record,) = caplog.records
    assert record.getMessage().startswith(f"{one} and {tmp_path / 'b.py'} both have a sweep named '{name}'")


def test_files_of_a_folder_can_be_named_like_modules_and_import_each_other(tmp_path, caplog):
    (tmp_path / "shared_by_files.py").write_text("BASE = {'epochs': 7}\n")
    own = STUDY.replace("NAME", "mine").replace('{"epochs": 1}', "BASE")
    for name in ("json.py", "quickstart.py"):
        text = f"from shared_by_files import BASE\n{own}".replace('"mine"', f'"{name[:4]}"')
        (tmp_path / name).write_text(text)
    (tmp_path / "_ignored.py").write_text("raise ValueError")
    assert get_sweep("json", tmp_path).studies[0].base == {"epochs": 7}
    assert get_sweep("quic", tmp_path).studies[0].base == {"epochs": 7}
    assert len(get_sweep("quickstart", tmp_path).studies) == 3
    import json

    assert json.loads("[1]") == [1]
    assert caplog.records == []


def test_two_folders_are_kept_apart(tmp_path):
    for folder, epochs in (("a", 1), ("b", 2)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.py").write_text(STUDY.replace("NAME", "mine").replace("1}", f"{epochs}}}"))
    assert get_sweep("mine", tmp_path / "a").studies[0].base == {"epochs": 1}
    assert get_sweep("mine", tmp_path / "b").studies[0].base == {"epochs": 2}
    assert "mine" not in list_sweeps()


@pytest.mark.parametrize("there", ["nothing", "a file"])
def test_what_is_no_folder_is_told(tmp_path, there):
    path = tmp_path / "nowhere"
    if there == "a file":
        path.write_text("")
    with pytest.raises(NotADirectoryError, match=f"--studies: '{path}' is no folder"):
        list_sweeps(path)
