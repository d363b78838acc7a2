"""Packs that lead out of the file, never end, declare what is not there, or are damaged: one line within seconds."""

import random
import subprocess
import sys

import h5py
import numpy as np
import pytest

from datasets import DatasetError, ImagePack, TensorPack, open_source
from datasets.errors import UnreadableImageError
from datasets.packs.structure import MOST_ROWS

PIXELS = np.arange(4 * 3 * 5 * 3).reshape(4, 3, 5, 3).astype(np.uint8)


@pytest.fixture
def made(tmp_path):
    """Writes a pack with what a function puts into it, and returns its path."""

    def make(fill):
        path = tmp_path / "pack.h5"
        with h5py.File(path, "w") as file:
            fill(file)
        return path

    return make


def refusal(path):
    with pytest.raises(DatasetError) as caught:
        open_source(path)
    assert len(str(caught.value)) < 500
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def elsewhere(tmp_path):
    path = tmp_path / "elsewhere.h5"
    with h5py.File(path, "w") as file:
        file["images"] = PIXELS
        file["names"] = [b"a", b"b", b"c", b"d"]
    return path


@pytest.mark.parametrize("name", ["images", "names"])
def test_a_link_to_another_file_is_refused_by_name(made, elsewhere, name):
    def fill(file):
        file["images"] = PIXELS
        if name == "images":
            del file["images"]
        file[name] = h5py.ExternalLink(elsewhere.name, f"/{name}")

    assert f"pack.h5: '{name}' is a link to another file, 'elsewhere.h5'; copy" in refusal(made(fill))


def test_a_link_to_another_file_is_found_behind_a_link_of_the_file_itself(made, elsewhere):
    def fill(file):
        file["images"] = h5py.SoftLink("/group/images")
        file["group"] = h5py.ExternalLink(elsewhere.name, "/")

    assert "'images' is a link to another file, 'elsewhere.h5'" in refusal(made(fill))


def test_a_virtual_dataset_is_refused_by_name(made, elsewhere):
    def fill(file):
        layout = h5py.VirtualLayout(PIXELS.shape, np.uint8)
        layout[:] = h5py.VirtualSource(str(elsewhere), "images", PIXELS.shape)
        file.create_virtual_dataset("images", layout)

    assert "'images' is a virtual dataset, whose values are in other files" in refusal(made(fill))


def test_values_in_another_file_are_refused_by_name(made, tmp_path):
    (tmp_path / "secret").write_bytes(bytes(PIXELS.size))

    def fill(file):
        file.create_dataset("images", PIXELS.shape, np.uint8, external=[(str(tmp_path / "secret"), 0, PIXELS.size)])

    assert f"'images' takes its values from another file, '{tmp_path / 'secret'}'" in refusal(made(fill))


@pytest.mark.parametrize("name", ["images", "names"])
def test_links_without_end_are_one_line(made, name):
    def fill(file):
        if name != "images":
            file["images"] = PIXELS
        file[name], file["other"] = h5py.SoftLink("/other"), h5py.SoftLink(f"/{name}")

    assert f"'{name}' is a link that leads to no dataset, but to links without end" in refusal(made(fill))


def test_links_within_the_file_are_followed(made):
    def fill(file):
        file["group/pixels"] = PIXELS
        file["images"] = h5py.SoftLink("group/pixels")

    with ImagePack(made(fill)) as pack:
        assert np.array_equal(pack.read(2), PIXELS[2])


def test_a_pack_of_tensors_follows_no_link_either(made, elsewhere):
    path = made(lambda file: file.__setitem__("x/y", h5py.ExternalLink(elsewhere.name, "/images")))
    with pytest.raises(DatasetError, match="'x/y' is a link to another file"):
        TensorPack(path, ["x/y"])


def declared(shape, **options):
    return lambda file: file.create_dataset("images", shape, np.uint8, **options)


@pytest.mark.parametrize(
    ("fill", "message"),
    [
        (declared((2**40, 8, 8, 3), chunks=(64, 8, 8, 3)), f"declares {2**40} rows, at most {MOST_ROWS} are read"),
        (declared((4, 20000, 20000, 3), chunks=(1, 9, 9, 3)), "decompression bomb: 20000 x 20000 pixels"),
        (declared((8, 64, 64, 3), chunks=(1, 64, 64, 3)), "declares 8 rows, but not all of them were ever written"),
        (declared((8, 64, 64, 3)), "declares 8 rows, but not all of them were ever written"),
        (
            declared((512, 2048, 4096, 3), chunks=(512, 512, 1024, 3), compression="gzip"),
            "'images' has chunks of 768 MiB each, at most 512 are read",
        ),
        (lambda file: file.create_dataset("images", data=h5py.Empty("u1")), "found uint8 empty"),
        (declared((4, 0, 8, 3)), "'images' holds images without pixels"),
    ],
)
def test_what_a_pack_declares_is_checked_before_anything_is_read(made, fill, message):
    assert message in refusal(made(fill))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("names", {"shape": (2**40,), "dtype": h5py.string_dtype(), "chunks": (64,)}, f"found {2**40} values"),
        ("names", {"data": h5py.Empty("S3")}, "must hold text, at most 4194304 of them; found nothing"),
        ("names", {"shape": (4,), "dtype": "S100000"}, "must hold text; found 100,000 bytes for each"),
        ("labels", {"data": h5py.Empty("i8")}, r"'labels' must hold class indices, int64 [4]; found int64 empty"),
    ],
)
def test_what_stands_beside_the_samples_is_checked_too(made, name, options, message):
    def fill(file):
        file["images"] = PIXELS
        file.create_dataset(name, **options)

    assert message in refusal(made(fill))


def test_a_part_that_was_never_written_is_found(made):
    def fill(file):
        images = file.create_dataset("images", (8, 3, 5, 3), np.uint8, chunks=(1, 3, 5, 3))
        images[:7] = np.concatenate([PIXELS, PIXELS[:3]])

    assert "not all of them were ever written" in refusal(made(fill))


@pytest.mark.parametrize("place", ["pipe", "device"])
def test_what_is_no_file_is_refused_without_opening_it(tmp_path, no_file, place):
    path = no_file(tmp_path / "pack.h5", place)
    assert refusal(path).endswith(f"expected an HDF5 pack, found a {place}")


def test_a_pack_that_is_being_written_is_locked_and_not_damaged(made):
    path = made(lambda file: file.__setitem__("images", PIXELS))
    program = "import h5py, sys\nfile = h5py.File(sys.argv[1], 'a')\nprint('open', flush=True)\nsys.stdin.read()"
    command = [sys.executable, "-c", program, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdout.readline() == b"open\n"
        told = refusal(path)
        writer.stdin.close()
    assert told == f"{path}: locked: another process has it open for writing; wait until it is done"


def test_reading_that_never_ends_is_a_damaged_file(made):
    """The heap of the names is zeroed: HDF5 looks for its end, and finds records of length 0 without end."""

    def fill(file):
        file["images"] = PIXELS
        file.create_dataset("names", data=[b"n" * 900, b"o" * 900, b"p" * 900, b"q" * 900], dtype=h5py.string_dtype())

    path = made(fill)
    data = bytearray(path.read_bytes())
    heap = data.index(b"GCOL")
    data[heap + 16 : heap + 4096] = bytes(4080)
    path.write_bytes(data)
    assert "pack.h5: damaged HDF5 file: " in refusal(path)


def test_where_no_process_can_be_started_to_try_it_a_pack_is_one_line(made, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no python"))
    told = refusal(made(lambda file: file.create_dataset("images", data=PIXELS)))
    assert "pack.h5: cannot be read in a process of its own first, because none can be started" in told
    assert "No such file or directory" in told


def test_names_that_are_all_one_huge_text_are_refused_before_they_take_the_memory(made):
    """Texts of any length are stored as references: thousands of them may lead to the same bytes."""

    def fill(file):
        file["images"] = np.zeros((3000, 1, 1, 3), np.uint8)
        file.create_dataset("names", data=["n" * 2_000_000] + ["x"] * 2999, dtype=h5py.string_dtype())

    path = made(fill)
    with h5py.File(path) as file:
        first = file["names"].id.get_offset()
    data = bytearray(path.read_bytes())
    data[first : first + 16 * 3000] = data[first : first + 16] * 3000
    path.write_bytes(data)
    # On a slow machine its time is over before.
    ends = ("takes more than 1.5 GiB of memory", "does not end within 2 s")
    assert refusal(path).split("pack.h5: damaged HDF5 file: reading it ")[1].startswith(ends)


def test_damage_anywhere_is_one_line_or_an_unreadable_image(tmp_path, made):
    def fill(file):
        file.create_dataset("images", data=np.tile(PIXELS, (5, 1, 1, 1)), chunks=(4, 3, 5, 3), compression="gzip")
        file["labels"] = np.zeros(20, int)
        file["names"] = [f"{i:02}" for i in range(20)]

    sound = made(fill).read_bytes()
    chance = random.Random(5)
    damaged = tmp_path / "damaged.h5"
    for _ in range(12):
        data = bytearray(sound)
        at, length = chance.randrange(len(data)), chance.choice([1, 8, 64, 512])
        data[at : at + length] = chance.choice([bytes(length), b"\xff" * length, chance.randbytes(length)])
        damaged.write_bytes(data)
        try:
            with ImagePack(damaged) as pack:
                for i in range(len(pack)):
                    try:
                        assert pack.read(i).shape == (3, 5, 3)
                    except UnreadableImageError as error:
                        assert "damaged HDF5 data: " in str(error)
        except DatasetError as error:
            assert str(error).startswith(f"{damaged}: ")
