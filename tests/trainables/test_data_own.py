"""A user's own images, as a numpy archive or a folder: what is read, and how other files are refused."""

import contextlib
import io
import os
import subprocess
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import EpsImagePlugin, Image

from trainables.data import DATASETS, DataError, Images, load
from trainables.data.npz import npz_arrays


def pixels(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(256, size=shape, dtype=np.uint8)


def refuse(name: str, data_dir: Path) -> str:
    with pytest.raises(DataError) as error:
        DATASETS[name](data_dir)
    assert "\n" not in str(error.value)
    assert not (data_dir / "arrow").exists()
    return str(error.value)


# --- npz -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "image_shape"), [((4, 5), (1, 4, 5)), ((4, 5, 1), (1, 4, 5)), ((4, 5, 3), (3, 4, 5))]
)
def test_an_archive_of_three_splits(tmp_path, shape, image_shape):
    own = {f"{split}_images": pixels(count, *shape) for split, count in (("train", 6), ("validation", 3), ("test", 2))}
    np.savez(tmp_path / "own.npz", **own, train_labels=np.array([{}], dtype=object))
    images = DATASETS["npz:own.npz"](tmp_path)
    assert images.image_shape == image_shape
    for split, part in images.splits.items():
        channels_last = own[f"{split}_images"].reshape(-1, *image_shape[1:], image_shape[0])
        np.testing.assert_array_equal(part.transpose(0, 2, 3, 1), channels_last)
    assert list(images.splits) == ["train", "validation", "test"]


def test_the_last_tenth_is_for_validation(tmp_path):
    own = pixels(25, 2, 2)
    np.savez_compressed(tmp_path / "own.npz", train_images=own)
    images = DATASETS["npz:own.npz"](tmp_path)
    np.testing.assert_array_equal(images.train[:, 0], own[:23])
    np.testing.assert_array_equal(images.validation[:, 0], own[23:])
    assert images.test is None


def test_paths_are_relative_to_the_data_folder_or_absolute(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    own = tmp_path / "data" / "own.npz"
    np.savez(own, train_images=pixels(4, 2, 2))
    relative, absolute = (DATASETS[f"npz:{path}"](tmp_path / "data") for path in ("own.npz", own))
    np.testing.assert_array_equal(relative.train, absolute.train)
    assert f"there is no own.npz in {tmp_path}/elsewhere" in refuse("npz:own.npz", tmp_path / "elsewhere")


@pytest.mark.parametrize("file", ["cifar10.npz", "imagenet32.npz"])
def test_real_archives(real_data, file):
    images = load(f"npz:{file}", real_data)
    with np.load(real_data / file) as archive:
        np.testing.assert_array_equal(images.test.transpose(0, 2, 3, 1), archive["test_images"])
    assert images.image_shape == (3, 32, 32)
    assert len(images.validation) * 9 == len(images.train)


GOOD = pixels(4, 2, 2)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": GOOD}, "has no 'train_images'; it has 'images'"),
        ({}, "has no 'train_images'; it has nothing"),
        ({"train_images": GOOD / 255}, "'train_images' must be an array of uint8, got float64"),
        (
            {"train_images": GOOD, "test_images": GOOD.astype(np.int8)},
            "'test_images' must be an array of uint8, got int8",
        ),
        ({"train_images": np.array([{}, []], dtype=object)}, "allow_pickle=False"),
        ({"train_images": pixels(4, 4)}, r"must be [N, H, W] or [N, H, W, 1 or 3], got [4, 4]"),
        ({"train_images": pixels(4, 3, 8, 8)}, "got [4, 3, 8, 8]"),
        ({"train_images": pixels(4, 2, 2, 2, 3)}, "got [4, 2, 2, 2, 3]"),
        ({"train_images": pixels(1, 2, 2)}, "there are only 1;"),
        ({"train_images": pixels(0, 2, 2)}, "there are only 0;"),
        ({"train_images": pixels(9, 0, 2)}, "there are no train images"),
        (
            {"train_images": GOOD, "test_images": pixels(4, 3, 3)},
            "(1, 2, 2) in the training split and (1, 3, 3) in the test split",
        ),
        (
            {"train_images": GOOD, "validation_images": pixels(4, 2, 2, 3)},
            "(1, 2, 2) in the training split and (3, 2, 2) in the validation split",
        ),
        ({"train_images": GOOD, "validation_images": GOOD[:0]}, "there are no validation images"),
    ],
    ids=range(14),
)
def test_archives_of_other_content_are_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "own.npz", **arrays)
    assert message in refuse("npz:own.npz", tmp_path)


def test_files_that_are_no_archives_are_refused(tmp_path):
    assert "there is no own.npz" in refuse("npz:own.npz", tmp_path)
    (tmp_path / "own.npz").mkdir()
    assert "there is no own.npz" in refuse("npz:own.npz", tmp_path)
    np.save(tmp_path / "array.npy", GOOD)
    assert "is not a numpy archive" in refuse("npz:array.npy", tmp_path)
    for number, content in enumerate((b"", b"PK\x03\x04", b"\x80\x04N.", b"\x93NUMPY")):
        (tmp_path / f"{number}.npz").write_bytes(content)
        assert f"{number}.npz is not a numpy archive" in refuse(f"npz:{number}.npz", tmp_path)


def member(header: str, content: bytes = b"") -> bytes:
    """An archive whose only member has this header."""
    text = header.encode().ljust(117) + b"\n"
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("train_images.npy", b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + content)
    return archive.getvalue()


HEADER = "{{'descr': {}, 'fortran_order': False, 'shape': {}, }}"


@pytest.mark.parametrize(
    "content",
    [
        member(HEADER.format("'|u1'", "(1000000000000000, 2, 2)"), b"1234"),
        member(HEADER.format("'|u1'", "(-1, 2, 2)"), b"1234"),
        member(HEADER.format("'|u1'", "(3, 2, 2)"), b"1234"),
        member(HEADER.format("'|O'", "(1,)"), b"\x80\x04cos\nsystem\n."),
        member(HEADER.format("[('a', '|u1'), ('b', '|O')]", "(1,)"), b"1234"),
        member("__import__('os').system('true')"),
        member("(" * 100),
        member(""),
    ],
    ids=range(8),
)
def test_arrays_that_cannot_be_are_refused(tmp_path, content):
    (tmp_path / "own.npz").write_bytes(content)
    assert "own.npz is not a numpy archive" in refuse("npz:own.npz", tmp_path)


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_an_archive_that_unpacks_to_much_more_is_refused_before_it_is_unpacked(tmp_path, method):
    size, header = 100 * 2**20, HEADER.format("'|u1'", f"({100 * 2**10}, 32, 32)").encode().ljust(117) + b"\n"
    content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(size)
    with zipfile.ZipFile(tmp_path / "own.npz", "w", method) as file:
        file.writestr("train_images.npy", content)
    assert (tmp_path / "own.npz").stat().st_size < size / 1000
    tracemalloc.start()
    message = refuse("npz:own.npz", tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert f"to {len(content):,} bytes when unpacked; at most 1,000 times is accepted" in message
    assert peak < size / 10


def test_images_of_one_colour_are_packed_tightly_and_accepted(tmp_path):
    np.savez_compressed(tmp_path / "own.npz", train_images=np.zeros((10_000, 28, 28), np.uint8))
    assert len(DATASETS["npz:own.npz"](tmp_path).train) == 9_000
    for number in range(2):
        save(tmp_path / "own" / f"{number}.webp", np.zeros((512, 512, 3), np.uint8), lossless=True)
    assert DATASETS["folder:own"](tmp_path).image_shape == (3, 512, 512)


def archives() -> list[bytes]:
    contents = []
    for save in (np.savez, np.savez_compressed):
        stream = io.BytesIO()
        save(stream, train_images=GOOD, test_images=GOOD)
        contents.append(stream.getvalue())
    return [*contents, member(HEADER.format("'|u1'", "(1, 2, 2)"), b"1234")]


VALID = archives()


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "own"


def survive(read, path: Path, content: bytes) -> None:
    """Asserts that reading gives images or a one-line DataError; any other exception fails the test."""
    path.write_bytes(content)
    try:
        outcome = read(path)
    except DataError as error:
        outcome = error
    assert isinstance(outcome, dict | np.ndarray | DataError)
    assert not isinstance(outcome, DataError) or "\n" not in str(outcome)


@given(st.data())
@settings(max_examples=400, deadline=None)
@pytest.mark.filterwarnings("ignore")
def test_damaged_archives_are_refused(fuzzed, data):
    content = bytearray(data.draw(st.sampled_from(VALID)))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
    survive(lambda path: npz_arrays(path, ["train_images"], ["test_images"]), fuzzed, bytes(content))


DESCR = st.sampled_from(["'|u1'", "'|O'", "'<f8'", "'|V0'", "'|S3'", "[('a', '|u1')]", "'|u1,|O'", "None", "()"])
SHAPE = st.one_of(
    st.sampled_from(["()", "None", "(1.5,)", "('a',)", "(True,)", "(10**20,)"]),
    st.lists(st.integers(-2, 2**40), max_size=4).map(lambda sizes: str((*sizes,))),
)


@given(DESCR, SHAPE, st.binary(max_size=20))
@settings(max_examples=300, deadline=None)
@pytest.mark.filterwarnings("ignore")
def test_headers_of_all_kinds_are_refused(fuzzed, descr, shape, content):
    survive(lambda path: npz_arrays(path, ["train_images"]), fuzzed, member(HEADER.format(descr, shape), content))


# --- folder ----------------------------------------------------------------------------------------------------------


def save(path: Path, array: np.ndarray, mode: str | None = None, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path, **options)


def all_images(images: Images) -> np.ndarray:
    return np.concatenate([images.train, images.validation])


def as_set(images: np.ndarray) -> set[bytes]:
    return {image.tobytes() for image in images}


def test_a_folder_of_colour_images(tmp_path):
    own = pixels(30, 4, 5, 3)
    for number, image in enumerate(own):
        save(tmp_path / "own" / f"class {number % 3}" / f"{number}.png", image)
    images = DATASETS["folder:own"](tmp_path)
    assert images.image_shape == (3, 4, 5)
    assert (len(images.train), len(images.validation)) == (27, 3)
    assert as_set(all_images(images)) == as_set(own.transpose(0, 3, 1, 2))


def test_validation_images_of_a_folder_are_not_the_last_class(tmp_path):
    # Image i of class c is filled with 100 * c + i.
    for number, level in enumerate([*range(100, 120), *range(200, 220)]):
        save(tmp_path / "own" / str(level // 100) / f"{number:02}.png", np.full((2, 2), level, np.uint8))
    images = DATASETS["folder:own"](tmp_path)
    assert {int(level) // 100 for level in images.validation[:, 0, 0, 0]} == {1, 2}
    # A fixed permutation of the sorted paths gives the order.
    levels = np.array([*range(100, 120), *range(200, 220)])[np.random.default_rng(0).permutation(40)]
    np.testing.assert_array_equal(all_images(images)[:, 0, 0, 0], levels)


def test_order_does_not_depend_on_the_file_system(tmp_path):
    own = pixels(12, 2, 2)
    for folder, order in (("first", range(12)), ("second", reversed(range(12)))):
        for number in order:
            save(tmp_path / folder / f"{number:02}.png", own[number])
    np.testing.assert_array_equal(
        all_images(DATASETS["folder:first"](tmp_path)), all_images(DATASETS["folder:second"](tmp_path))
    )


def test_grey_images_stay_grey_unless_some_are_in_colour(tmp_path):
    grey = pixels(3, 2, 2)
    for number, image in enumerate(grey):
        save(tmp_path / "own" / f"{number}.png", image)
    assert as_set(all_images(DATASETS["folder:own"](tmp_path))) == as_set(grey)
    colour = pixels(2, 2, 3)
    save(tmp_path / "own" / "3.png", colour)
    images = all_images(DATASETS["folder:own"](tmp_path))
    assert as_set(images) == as_set(np.stack([np.stack([image] * 3) for image in grey])) | {
        colour.transpose(2, 0, 1).tobytes()
    }


@pytest.mark.parametrize(
    ("suffix", "mode", "channels"),
    [
        *((".png", mode, 1) for mode in ("1", "L")),
        *((".png", mode, 3) for mode in ("LA", "P", "RGB", "RGBA")),
        *((suffix, "RGB", 3) for suffix in (".bmp", ".GIF", ".jpeg", ".JPG", ".ppm", ".tif", ".tiff", ".webp")),
        (".jpg", "CMYK", 3),
        (".pgm", "L", 1),
    ],
)
def test_many_kinds_of_files_are_read(tmp_path, suffix, mode, channels):
    for number in range(2):
        save(tmp_path / "own" / f"{number}{suffix}", np.full((3, 4, 3), 255, np.uint8), mode)
    images = all_images(DATASETS["folder:own"](tmp_path))
    assert images.shape == (2, channels, 3, 4)
    assert images.min() > 250


def test_other_and_hidden_files_are_passed_over(tmp_path):
    for number in range(2):
        save(tmp_path / "own" / f"{number}.png", pixels(2, 2))
    for name in ("labels.csv", "._0.png", "Thumbs.db"):
        (tmp_path / "own" / name).write_bytes(b"not an image")
    assert len(all_images(DATASETS["folder:own"](tmp_path))) == 2


def test_folders_without_images_are_refused(tmp_path):
    assert f"there is no folder {tmp_path}/own" in refuse("folder:own", tmp_path)
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "a.txt").touch()
    assert f"there are no images in {tmp_path}/own; their names must end with one of .bmp" in refuse(
        "folder:own", tmp_path
    )
    assert f"there is no folder {tmp_path}/own/a.txt" in refuse("folder:own/a.txt", tmp_path)
    save(tmp_path / "own" / "a.png", pixels(2, 2))
    assert "there are only 1;" in refuse("folder:own", tmp_path)


def test_the_image_of_another_size_is_named(tmp_path):
    for number in range(3):
        save(tmp_path / "own" / f"{number}.png", pixels(2, 3))
    save(tmp_path / "own" / "sub" / "odd.png", pixels(3, 2))
    assert f"sub/odd.png is 2x3 and {tmp_path}/own/0.png is 3x2" in refuse("folder:own", tmp_path)


@pytest.mark.parametrize("length", [0, 20, 60, -60])
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".gif", ".webp"])
def test_an_unreadable_image_is_named(tmp_path, suffix, length):
    for number in range(3):
        save(tmp_path / "own" / f"{number}{suffix}", pixels(16, 16, 3))
    bad = tmp_path / "own" / f"1{suffix}"
    bad.write_bytes(bad.read_bytes()[:length])
    assert refuse("folder:own", tmp_path).startswith(f"{bad} cannot be read as an image: ")


POSTSCRIPT = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 2 2
%%EndComments
(pwned) (w) file closefile
showpage
%%EOF
"""


def test_postscript_starts_no_program(tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr(subprocess, "Popen", lambda *arguments, **_: started.append(arguments))
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", "gs")  # as where Ghostscript is installed
    for number in range(2):
        save(tmp_path / "own" / f"{number}.png", pixels(2, 2))
    (tmp_path / "own" / "0.png").write_bytes(POSTSCRIPT)
    with Image.open(tmp_path / "own" / "0.png") as image, contextlib.suppress(Exception):
        image.load()
    assert started.pop()[0][0] == "gs"  # Pillow alone starts it
    refused = refuse("folder:own", tmp_path)
    assert started == []
    assert refused.startswith(f"{tmp_path}/own/0.png cannot be read as an image: cannot identify image file")


@pytest.mark.parametrize("other", ["TGA", "ICO", "PCX", "SGI", "JPEG2000", "EPS", "AVIF"])
def test_only_the_documented_formats_are_read(tmp_path, other):
    for number in range(2):
        save(tmp_path / "own" / f"{number}.png", pixels(16, 16, 3), format=other)
        with Image.open(tmp_path / "own" / f"{number}.png") as image:
            assert image.format == other
    assert "cannot identify image file" in refuse("folder:own", tmp_path)


def test_pipes_and_devices_are_not_opened(tmp_path):
    for number in range(2):
        save(tmp_path / "own" / f"{number}.png", pixels(2, 2))
    os.mkfifo(tmp_path / "own" / "1.5.png")
    assert refuse("folder:own", tmp_path) == f"{tmp_path}/own/1.5.png is not a regular file"
    (tmp_path / "own" / "1.5.png").unlink()
    (tmp_path / "own" / "1.5.png").symlink_to("/dev/zero")
    assert refuse("folder:own", tmp_path) == f"{tmp_path}/own/1.5.png is not a regular file"
    os.mkfifo(tmp_path / "own.npz")
    assert "there is no own.npz" in refuse("npz:own.npz", tmp_path)


def test_folders_named_like_images_are_entered(tmp_path):
    for number in range(2):
        save(tmp_path / "own" / "class.png" / f"{number}.png", pixels(2, 2))
    assert len(all_images(DATASETS["folder:own"](tmp_path))) == 2


def test_an_image_that_unpacks_to_much_more_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    for number in range(2):
        save(tmp_path / "own" / f"{number}.webp", np.zeros((10_000, 10_000, 3), np.uint8)[:, :8_000], lossless=True)
    monkeypatch.setattr(Image.Image, "convert", lambda *_: pytest.fail("decoded"))
    message = refuse("folder:own", tmp_path)
    assert message.startswith(f"{tmp_path}/own/0.webp would grow from ")
    assert message.endswith(" to 240,000,000 bytes when unpacked; at most 1,000 times is accepted")


def test_a_link_to_nowhere_is_named(tmp_path):
    for number in range(2):
        save(tmp_path / "own" / f"{number}.png", pixels(2, 2))
    (tmp_path / "own" / "1.png").unlink()
    (tmp_path / "own" / "1.png").symlink_to("nowhere.png")
    assert refuse("folder:own", tmp_path) == f"{tmp_path}/own/1.png cannot be read: No such file or directory"


def test_images_of_more_than_8_bits_are_refused(tmp_path):
    for number in range(2):
        save(tmp_path / "own" / f"{number}.png", np.full((2, 2), 60_000, np.uint16))
    assert "0.png has pixels of mode 'I;16'; images must have 8 bits per channel" in refuse("folder:own", tmp_path)


@given(st.data())
@settings(max_examples=200, deadline=None)
@pytest.mark.filterwarnings("ignore")
def test_damaged_images_are_refused(fuzzed, data):
    from trainables.data.folder import _decoded

    stream = io.BytesIO()
    Image.fromarray(pixels(4, 4, 3)).save(stream, data.draw(st.sampled_from(["png", "jpeg", "gif", "bmp", "tiff"])))
    content = bytearray(stream.getvalue())
    at = data.draw(st.integers(0, len(content) - 1))
    content[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
    survive(_decoded, fuzzed, bytes(content))
