"""The reader of pickled images reads files of Python 2 and 3, and executes nothing."""

import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pickles import planes, python2_pickle, python3_pickle

from trainables.data import DataError
from trainables.data.unpickle import pickled_images

PATH = Path("batch")
ROWS = planes(3)


def refuse(content: bytes) -> str:
    with pytest.raises(DataError, match=r"^batch is not a batch of images") as error:
        pickled_images(PATH, content)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_format_of_python_2_is_what_python_reads():
    # Checks the tests' own writer with Python's reader, which reads text as bytes here.
    batch = pickle.loads(python2_pickle(ROWS), encoding="bytes")
    np.testing.assert_array_equal(batch[b"data"], ROWS)
    assert batch[b"labels"] == [0, 1, 2]


@pytest.mark.parametrize(
    "content",
    [python2_pickle(ROWS), *(python3_pickle(ROWS, protocol) for protocol in (0, 1, 2, 3, 4))],
    ids=["python 2", *(f"protocol {protocol}" for protocol in range(5))],
)
def test_reads_what_python_2_and_3_write(content):
    images = pickled_images(PATH, content)
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(images, ROWS)


def test_keys_may_be_text_or_bytes():
    for key in ("data", b"data"):
        np.testing.assert_array_equal(pickled_images(PATH, pickle.dumps({key: ROWS}, protocol=4)), ROWS)
        np.testing.assert_array_equal(pickled_images(PATH, pickle.dumps({key: ROWS}, protocol=2)), ROWS)


def test_the_order_of_axes_is_kept():
    fortran = np.asfortranarray(ROWS)
    assert not fortran.flags.c_contiguous
    np.testing.assert_array_equal(pickled_images(PATH, python3_pickle(fortran)), ROWS)


class Payload:
    """An object that pickles to a function call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


FORBIDDEN = [
    (b"cos\nsystem\n(S'touch {}'\ntR.", "os.system"),
    (b'c__builtin__\neval\n(S\'open("{}", "w")\'\ntR.', "__builtin__.eval"),
    (b"(S'touch {}'\nios\nsystem\n.", "os.system"),
    (b'\x80\x04\x8c\x08builtins\x8c\x04exec\x93\x8c\x13open("{}", "w").__\x85R.', "builtins.exec"),
    (b"\x80\x02}(U\x04datacos\nsystem\nU\x08touch {}\x85Ru.", "os.system"),
]


@pytest.mark.parametrize(("content", "name"), FORBIDDEN, ids=range(len(FORBIDDEN)))
def test_what_a_pickle_asks_for_is_told_and_not_done(content, name):
    assert f"it contains '{name}'," in refuse(content)


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_nothing_is_executed(tmp_path, protocol):
    mark = tmp_path / "mark"
    content = pickle.dumps({"data": Payload(open, str(mark), "w")}, protocol=protocol)
    assert "open" in refuse(content)
    assert not mark.exists()
    pickle.loads(content)["data"].close()  # Python's reader executes the call
    assert mark.exists()


@pytest.mark.parametrize(
    "name",
    ["numpy.load", "numpy.ndarray.tofile", "numpy.dtype.__class__", "_codecs.decode", "numpy.core.multiarray.fromfile"],
)
def test_neighbours_of_what_is_known_are_not(name):
    module, _, function = name.rpartition(".")
    assert name in refuse(f"c{module}\n{function}\n.".encode())


@pytest.mark.parametrize("name", ["ndarray.tofile", "a\nb"])
def test_dotted_names_of_protocol_4_are_not_known_either(name):
    content = b"\x80\x04\x8c\x05numpy\x8c" + bytes([len(name)]) + name.encode() + b"\x93."
    assert ascii(f"numpy.{name}") in refuse(content)


def test_an_array_of_pointers_is_not_made():
    # dtype("O") with a state that denies objects: numpy would use the bytes as addresses.
    content = python2_pickle(ROWS).replace(b"cnumpy\ndtype\nU\x02u1", b"cnumpy\ndtype\nU\x02O8")
    assert "its data are not uint8" in refuse(content)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({"images": ROWS}, "it has no 'data'"),
        ({}, "it has no 'data'"),
        ({"data": ROWS.astype(np.int64)}, "not uint8"),
        ({"data": ROWS.tolist()[:1]}, "are not an array"),
        ({"data": np.array([None, {}])}, "not uint8"),
        ([ROWS], "AttributeError"),
        (None, "AttributeError"),
    ],
    ids=range(7),
)
def test_other_content_is_refused(batch, message):
    assert message in refuse(pickle.dumps(batch, protocol=4))


@pytest.mark.parametrize("length", [0, 1, 50, 200, 5_000, -1])
def test_a_truncated_pickle_is_refused(length):
    refuse(python2_pickle(ROWS)[:length])


@pytest.mark.parametrize(
    "content",
    [
        b"r\xff\xff\xff\x7f.",  # a position in the memo for which C would allocate 32 GB
        b"\x8e" + b"\xff" * 7 + b"\x7f.",
        b"\x96" + b"\xff" * 7 + b"\x7f.",
        b"\x80\x04\x95" + b"\xff" * 7 + b"\x7f.",
    ],
)
def test_sizes_that_cannot_be_are_refused(content):
    refuse(content)


# --- fuzzing ---------------------------------------------------------------------------------------------------------

FRAGMENTS = [
    *(b"cos\nsystem\n", b"cbuiltins\neval\n", b"c__builtin__\ngetattr\n", b"cnumpy\nndarray\n", b"cnumpy\ndtype\n"),
    *(b"cnumpy.core.multiarray\n_reconstruct\n", b"c_codecs\nencode\n", b"S'touch x'\n", b"U\x02u1", b"U\x04data"),
    *(b"(", b")", b"}", b"]", b"N", b"K\x01", b"J\xff\xff\xff\xff", b"t", b"\x85", b"\x86", b"\x87", b"l", b"d"),
    *(b"R", b"b", b"o", b"\x81", b"\x92", b"\x93", b"i", b"s", b"u", b"a", b"e", b"0", b"1", b"2", b"p0\n", b"g0\n"),
    *(b"P1\n", b"Q", b"\x82\x01", b"\x8f", b"\x90", b"\x91", b"\x97", b"\x98", b"."),
]
EVENTS = []
WATCHED = ("exec", "compile", "import", "open", "os.", "subprocess.", "socket.", "ctypes.", "pickle.", "shutil.")


@pytest.fixture(scope="module")
def watch():
    """Records Python's audit events during reading; a hook cannot be removed, so it is switched off."""
    active = [True]

    def hook(event, arguments):
        if active[0] and WATCHING[0] and event.startswith(WATCHED):
            EVENTS.append(event)

    sys.addaudithook(hook)
    yield
    active[0] = False


WATCHING = [False]


def survive(content: bytes) -> None:
    """Asserts that reading gives an array of bytes or a DataError, and does nothing else."""
    EVENTS.clear()
    outcome = None
    WATCHING[0] = True
    try:
        outcome = pickled_images(PATH, content)
    except DataError as error:
        outcome = error
    finally:
        WATCHING[0] = False
    assert EVENTS == []
    assert isinstance(outcome, DataError) or outcome.dtype == np.uint8
    assert "\n" not in str(outcome) or isinstance(outcome, np.ndarray)


@given(st.lists(st.sampled_from(FRAGMENTS), max_size=30))
@settings(max_examples=500, deadline=None)
def test_programs_of_a_pickle_do_nothing(watch, fragments):
    survive(b"".join(fragments) + b".")


VALID = python2_pickle(ROWS[:1])[:200], python3_pickle(ROWS[:1, :40], protocol=2), python3_pickle(ROWS[:1, :40], 4)


@given(st.data())
@settings(max_examples=500, deadline=None)
def test_damaged_pickles_do_nothing(watch, data):
    content = bytearray(data.draw(st.sampled_from(VALID)))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        length = data.draw(st.integers(0, 3))
        content[at : at + length] = data.draw(st.one_of(st.binary(max_size=3), st.sampled_from(FRAGMENTS)))
    survive(bytes(content))


@given(st.binary(max_size=100))
@settings(max_examples=200, deadline=None)
def test_any_bytes_do_nothing(watch, content):
    survive(content)


def test_the_watch_sees_a_pickle_at_work(watch):
    EVENTS.clear()
    WATCHING[0] = True
    try:
        pickle.loads(b"cbuiltins\neval\n(S'1'\ntR.")
    finally:
        WATCHING[0] = False
    assert {"pickle.find_class", "compile", "exec"} <= set(EVENTS)
