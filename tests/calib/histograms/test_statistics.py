import os

import h5py
import numpy as np
import pytest

from calib.errors import CalibrationError, NonFiniteError
from calib.histograms.sealed_hdf5 import sealed
from calib.histograms.statistics import FORMAT, Statistics, read_statistics, write_statistics


@pytest.fixture
def statistics(histogram_of):
    return Statistics(
        {
            "input": histogram_of([-1.0, 0.5, 0.0]),
            "name: with blanks/ü": histogram_of(np.linspace(-9, 3e5, 1000)),
            "all zero": histogram_of([0.0, 0.0]),
            "empty": histogram_of([]),
            "denormal": histogram_of([1e-42]),
        },
        images=17,
        products=frozenset({"input", "empty"}),
    )


def test_statistics_on_disk_are_the_same(tmp_path, statistics, assert_same_histogram):
    write_statistics(statistics, tmp_path / "s.h5")
    read = read_statistics(tmp_path / "s.h5")
    assert read.images == 17
    assert read.products == {"input", "empty"}
    assert list(read.histograms) == list(statistics.histograms)
    for name, histogram in statistics.histograms.items():
        assert_same_histogram(read.histograms[name], histogram)


def test_statistics_that_do_not_fit_on_the_disk_leave_the_older_ones(small_disk, statistics, histogram_of):
    disk = small_disk("size=64k")
    write_statistics(statistics, disk / "s.h5")
    before = (disk / "s.h5").read_bytes()
    values = np.random.default_rng(0).normal(size=(40, 3000))
    large = Statistics({f"t{i}": histogram_of(row) for i, row in enumerate(values)}, 1)
    with pytest.raises(CalibrationError, match=r"disk: could not be written: No space left.*untouched"):
        write_statistics(large, disk / "s.h5")
    assert [path.name for path in disk.iterdir()] == ["s.h5"]
    assert (disk / "s.h5").read_bytes() == before


@pytest.mark.parametrize("share", [0, 0.01, 0.3, 0.6, 0.9, 0.999])
def test_a_truncated_file_is_refused_by_name(tmp_path, statistics, share):
    write_statistics(statistics, tmp_path / "s.h5")
    contents = (tmp_path / "s.h5").read_bytes()
    (tmp_path / "cut.h5").write_bytes(contents[: int(share * len(contents))])
    with pytest.raises(CalibrationError, match=r"cut\.h5: cannot be read as statistics .*recalibrate"):
        read_statistics(tmp_path / "cut.h5")


def test_garbage_a_folder_and_nothing_are_refused_by_name(tmp_path):
    (tmp_path / "garbage.h5").write_bytes(bytes(range(256)) * 40)
    (tmp_path / "folder.h5").mkdir()
    for name in ("garbage.h5", "folder.h5", "nothing.h5"):
        with pytest.raises(CalibrationError, match=f"{name}: cannot be read as statistics"):
            read_statistics(tmp_path / name)


def test_another_hdf5_file_is_refused(tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["images"] = np.zeros(3)
    with pytest.raises(CalibrationError, match=r"other\.h5: cannot be read as statistics \(expected 'calib-stati"):
        read_statistics(tmp_path / "other.h5")


@pytest.fixture
def forged(tmp_path, statistics):
    """Writes statistics and changes them with HDF5, so that they look as if they had been written so."""

    def forge(change, *, seal=True):
        path = tmp_path / "s.h5"
        write_statistics(statistics, path)
        with h5py.File(path, "r+") as file:
            change(file)
        if seal:
            path.write_bytes(sealed(path.read_bytes(), FORMAT))
        return path

    return forge


def without(name):
    def change(file):
        del file[name]

    return change


def replaced(name, change=None, **options):
    def replace(file):
        older = file[name][()]
        del file[name]
        if change is not None:
            options["data"] = change(older)
        file.create_dataset(name, **options)

    return replace


def set_at(name, value):
    def change(file):
        file[name][0] = value

    return change


def linked(link):
    def change(file):
        del file["min"]
        file["min"] = link

    return change


def a_group(file):
    del file["min"]
    file.create_group("min")


def virtual(file):
    del file["min"]
    layout = h5py.VirtualLayout((5,), np.float64)
    layout[:] = h5py.VirtualSource(".", "max", (5,))
    file.create_virtual_dataset("min", layout)


def attribute(name, value=None):
    def change(file):
        del file.attrs[name]
        if value is not None:
            file.attrs[name] = value

    return change


PARTS = ("tensor", "product", "width", "zeros", "min", "max", "signed_counts")
NAMES = (b"a", b"b", b"c", b"d")
FORGED = {
    **{f"without {name}": without(name) for name in PARTS},
    "contradiction": set_at("max", 1e9),
    "nan": set_at("min", np.nan),
    "fewer zeros than none": set_at("zeros", -1),
    "a width that is no power of two": set_at("width", (0.3, 0.3)),
    "counts near 2^63": set_at("signed_counts", 1 << 62),
    "counts whose sum wraps": set_at("signed_counts", 1 << 50),
    "a group": a_group,
    "texts": replaced("min", data=[b"a"] * 5),
    "variable texts": replaced("tensor", data=["a", "b", "c", "d", "e"], dtype=h5py.string_dtype()),
    "names that are no UTF-8": replaced("tensor", data=np.array([b"\xff", *NAMES])),
    "a name twice": replaced("tensor", data=np.array([b"a", *NAMES])),
    "a scalar": replaced("zeros", data=5),
    "nothing": replaced("zeros", data=h5py.Empty("i8")),
    "another shape": replaced("width", np.transpose),
    "another type": replaced("signed_counts", lambda older: older.astype(np.float64)),
    "fewer rows": replaced("signed_counts", lambda older: older[:2]),
    "an external link": linked(h5py.ExternalLink("/etc/passwd", "/min")),
    "a link in a circle": linked(h5py.SoftLink("/min")),
    "a soft link": linked(h5py.SoftLink("/max")),
    "a raw file": replaced("min", shape=(5,), dtype=np.float64, external=[("/etc/passwd", 0, 40)]),
    "virtual data": virtual,
    "data that was never written": replaced("signed_counts", shape=(5, 2, 8192), dtype=np.int64, chunks=(1, 2, 8192)),
    "a million tensors": replaced("tensor", data=np.arange(1 << 20).astype("S8"), compression="gzip"),
    "images that are a text": attribute("images", "many"),
    "images that are an array": attribute("images", np.arange(3)),
    "negative images": attribute("images", -1),
    "no images": attribute("images"),
}


@pytest.mark.parametrize("change", FORGED.values(), ids=FORGED.keys())
def test_made_up_statistics_are_refused_in_one_line(forged, change):
    with pytest.raises(CalibrationError, match=r"s\.h5: cannot be read as statistics .*; recalibrate") as caught:
        read_statistics(forged(change))
    assert "\n" not in str(caught.value)


def test_edited_statistics_are_refused_before_hdf5_looks_at_them(forged):
    with pytest.raises(CalibrationError, match="its contents are not those that were written"):
        read_statistics(forged(set_at("max", 5.0), seal=False))


@pytest.mark.parametrize("seed", range(40))
def test_any_damage_is_noticed(tmp_path, statistics, seed):
    write_statistics(statistics, tmp_path / "s.h5")
    contents = np.frombuffer((tmp_path / "s.h5").read_bytes(), np.uint8).copy()
    random = np.random.default_rng(seed)
    start, length = random.integers(len(contents)), random.choice([1, 16, 4096])
    contents[start : start + length] ^= random.integers(1, 256, dtype=np.uint8)
    (tmp_path / "s.h5").write_bytes(contents.tobytes())
    with pytest.raises(CalibrationError, match=r"s\.h5: cannot be read as statistics"):
        read_statistics(tmp_path / "s.h5")


def test_statistics_that_are_no_regular_file_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.h5")
    (tmp_path / "zero.h5").symlink_to("/dev/zero")
    for name in ("pipe.h5", "zero.h5"):
        with pytest.raises(CalibrationError, match=f"{name}: cannot be read as statistics .not a regular file"):
            read_statistics(tmp_path / name)


def test_more_values_than_can_be_counted_are_refused(histogram_of):
    full = histogram_of([1.0])
    full.signed_counts[1] *= 1 << 53
    with pytest.raises(CalibrationError, match="expected up to"):
        full.merged(full)


def test_merged_statistics_are_those_of_one_pass(assert_same_histogram):
    values = np.random.default_rng(0).normal(size=(10, 50)).astype(np.float32)
    whole, first, second = Statistics(), Statistics(), Statistics()
    for statistics, rows in ((whole, values), (first, values[:3]), (second, values[3:])):
        statistics.add("a", rows)
        statistics.add("b", rows * 100)
        statistics.images = len(rows)
    merged = first.merged(second)
    assert merged.images == 10
    for name in ("a", "b"):
        assert_same_histogram(merged.histograms[name], whole.histograms[name])


def test_merging_with_nothing_keeps_everything(statistics, assert_same_histogram):
    for merged in (statistics.merged(Statistics()), Statistics().merged(statistics)):
        assert merged.images == 17
        assert_same_histogram(merged.histograms["input"], statistics.histograms["input"])


def test_statistics_of_different_models_are_not_merged(histogram_of):
    first = Statistics({"a": histogram_of([1.0]), "b": histogram_of([1.0])}, 1)
    second = Statistics({"a": histogram_of([1.0]), "c": histogram_of([1.0])}, 1)
    with pytest.raises(CalibrationError, match="different models: 2 tensors are in only one of them, the first is 'b'"):
        first.merged(second)


def test_what_one_shard_left_out_is_left_out_of_all(tmp_path, histogram_of, assert_same_histogram):
    """A mask may stand in the images of one shard only; the other's file knows the tensor."""
    plain = Statistics({"a": histogram_of([1, 2]), "b": histogram_of([3])}, 2, products=frozenset("ab"))
    masked = Statistics({"a": histogram_of([5])}, 1, products=frozenset("a"), left_out=("b", "größe"))
    write_statistics(masked, tmp_path / "masked.h5")
    again = read_statistics(tmp_path / "masked.h5")
    assert again.left_out == ("b", "größe")
    for merged in (plain.merged(again), again.merged(plain)):
        assert (list(merged.histograms), merged.images, set(merged.left_out)) == (["a"], 3, {"b", "größe"})
        assert merged.products == {"a"}
        assert_same_histogram(merged.histograms["a"], histogram_of([1, 2, 5]))


def test_a_value_that_is_not_finite_names_the_tensor():
    with pytest.raises(NonFiniteError, match="tensor 'conv1': value 2 is nan") as caught:
        Statistics().add("conv1", np.array([0, 1, np.nan], np.float32))
    assert (caught.value.tensor, caught.value.index) == ("conv1", 2)
