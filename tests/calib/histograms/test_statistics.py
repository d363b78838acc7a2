import h5py
import numpy as np
import pytest

from calib.errors import CalibrationError, NonFiniteError
from calib.histograms.statistics import Statistics, read_statistics, write_statistics


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
    with pytest.raises(CalibrationError, match=r"other\.h5: expected 'calib-statistics-2', found 'None'"):
        read_statistics(tmp_path / "other.h5")


@pytest.mark.parametrize("lost", ["tensor", "product", "width", "zeros", "min", "max", "signed_counts"])
def test_a_file_that_lacks_a_part_is_refused(tmp_path, statistics, lost):
    write_statistics(statistics, tmp_path / "s.h5")
    with h5py.File(tmp_path / "s.h5", "r+") as file:
        del file[lost]
    with pytest.raises(CalibrationError, match=r"s\.h5"):
        read_statistics(tmp_path / "s.h5")


def test_a_file_whose_parts_contradict_each_other_is_refused(tmp_path, statistics):
    write_statistics(statistics, tmp_path / "s.h5")
    with h5py.File(tmp_path / "s.h5", "r+") as file:
        file["max"][0] = 1e9
    with pytest.raises(CalibrationError, match=r"s\.h5"):
        read_statistics(tmp_path / "s.h5")


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


def test_a_value_that_is_not_finite_names_the_tensor():
    with pytest.raises(NonFiniteError, match="tensor 'conv1': value 2 is nan") as caught:
        Statistics().add("conv1", np.array([0, 1, np.nan], np.float32))
    assert (caught.value.tensor, caught.value.index) == ("conv1", 2)
