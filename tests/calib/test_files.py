import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pytest

from calib.algorithms import MinMax
from calib.caches.cache import cache_from_amax
from calib.caches.provenance import Calibration, Source, write_calibration
from calib.errors import CalibrationError
from calib.files import Transaction, exclusive
from calib.histograms.statistics import Statistics

HOLDER = """
import sys
from pathlib import Path
from calib.files import exclusive
with exclusive(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def contents(folder):
    return {path.name: path.read_text() for path in folder.iterdir() if path.name != ".lock"}


def is_held(folder):
    try:
        with exclusive(folder):
            return False
    except CalibrationError as error:
        assert "another calib run is writing here" in str(error)
        return True


def test_files_appear_together_when_the_block_ends(tmp_path):
    with Transaction(tmp_path / "new" / "folder") as files:
        files.stage("a").write_text("1")
        files.stage("b").write_text("2")
        assert not (tmp_path / "new" / "folder" / "a").exists()
    assert contents(tmp_path / "new" / "folder") == {"a": "1", "b": "2"}


def test_what_is_discarded_goes_when_the_block_ends(tmp_path):
    for name in ("old", "kept"):
        (tmp_path / name).write_text(name)
    with Transaction(tmp_path) as files:
        files.stage("new").write_text("new")
        files.discard("old")
        files.discard("never there")
        assert (tmp_path / "old").read_text() == "old"
    assert contents(tmp_path) == {"kept": "kept", "new": "new"}


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), SystemExit(3), MemoryError()])
def test_an_exception_passes_through_and_leaves_everything_as_it_was(tmp_path, error):
    (tmp_path / "a").write_text("old")
    with pytest.raises(type(error)) as caught, Transaction(tmp_path) as files:
        files.stage("a").write_text("new")
        files.stage("b").write_text("new")
        files.discard("a")
        raise error
    assert caught.value is error
    assert contents(tmp_path) == {"a": "old"}


def test_a_staged_file_that_was_never_written_leaves_everything_as_it_was(tmp_path):
    (tmp_path / "a").write_text("old")
    with pytest.raises(CalibrationError, match="could not be written"), Transaction(tmp_path) as files:
        files.stage("b")
        files.discard("a")
    assert contents(tmp_path) == {"a": "old"}


def test_a_folder_in_the_place_of_one_file_leaves_the_others_as_they_were(tmp_path):
    (tmp_path / "a").write_text("old")
    (tmp_path / "b").mkdir()
    with pytest.raises(CalibrationError, match="could not be written"), Transaction(tmp_path) as files:
        files.stage("a").write_text("new")
        files.stage("b").write_text("new")
    assert (tmp_path / "a").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_a_full_disk_is_one_error_and_the_older_files_stay(small_disk):
    disk = small_disk("size=64k")
    (disk / "a").write_text("old")
    message = r"disk: could not be written: No space left.*untouched"
    with pytest.raises(CalibrationError, match=message) as caught, Transaction(disk) as files:
        files.stage("a").write_text("new")
        files.stage("b").write_bytes(os.urandom(200_000))
    assert "\n" not in str(caught.value)
    assert contents(disk) == {"a": "old"}


def test_a_calibration_that_does_not_fit_on_the_disk_leaves_the_older_one(small_disk, histogram_of):
    disk = small_disk("size=64k")

    def calibration(tensors, seed):
        values = np.random.default_rng(seed)
        histograms = {f"t{i}": histogram_of(values.normal(size=5000)) for i in range(tensors)}
        cache = cache_from_amax({name: h.abs_max for name, h in histograms.items()}, MinMax())
        return Calibration(cache, "minmax", {}, Source("", "", {}, ()), Statistics(histograms, 1), {})

    write_calibration(calibration(1, 0), disk / "calibration.cache")
    before = {path.name: path.read_bytes() for path in disk.iterdir()}
    with pytest.raises(CalibrationError, match=r"disk: could not be written: No space left"):
        write_calibration(calibration(40, 1), disk / "calibration.cache")
    assert {path.name: path.read_bytes() for path in disk.iterdir()} == before


def test_a_file_where_a_folder_should_be_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    for folder in (tmp_path / "file", tmp_path / "file" / "inside"):
        with pytest.raises(CalibrationError, match="file"), Transaction(folder):
            pass
        with pytest.raises(CalibrationError, match="file"), exclusive(folder):
            pass
    assert contents(tmp_path) == {"file": "x"}


@dataclass
class Holder:
    """Another process that holds a folder."""

    process: subprocess.Popen

    def end(self, how):
        if how == "well":
            self.process.stdin.close()
        else:
            self.process.send_signal(how)
        self.process.wait(10)


@pytest.fixture
def holder(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "held\n"
        yield Holder(process)
        process.kill()


@pytest.mark.parametrize("how", ["well", signal.SIGKILL])
def test_a_folder_is_held_by_one_process_until_it_ends(tmp_path, holder, how):
    with pytest.raises(CalibrationError, match=r"another calib run is writing here; .*--out"), exclusive(tmp_path):
        pytest.fail("both hold the folder")
    holder.end(how)
    assert not is_held(tmp_path)


def test_who_is_refused_leaves_the_holder_s_scratch_alone(tmp_path, holder):
    (tmp_path / ".calib-at-work").mkdir()
    with pytest.raises(CalibrationError), exclusive(tmp_path):
        pass
    assert (tmp_path / ".calib-at-work").is_dir()


def test_scratch_of_a_killed_run_is_removed_and_nothing_else(tmp_path):
    (tmp_path / ".calib-left").mkdir()
    (tmp_path / ".calib-left" / "model.onnx").write_text("half")
    (tmp_path / ".calib-left" / ".owner").touch()
    (tmp_path / ".calib-just-begun").mkdir()
    (tmp_path / "mine").mkdir()
    (tmp_path / ".calib-notes").mkdir()
    (tmp_path / ".calib-notes" / "mine").touch()
    (tmp_path / "calibration.cache").write_text("x")
    with exclusive(tmp_path):
        assert not (tmp_path / ".calib-left").exists()
        assert not (tmp_path / ".calib-just-begun").exists()
    assert (tmp_path / ".calib-notes" / "mine").exists()
    assert (tmp_path / "mine").is_dir()
    assert (tmp_path / "calibration.cache").read_text() == "x"


WRITER = """
import sys
from pathlib import Path
from calib.files import Transaction
with Transaction(Path(sys.argv[1])) as files:
    files.stage("model.onnx").write_text("new")
    print("staged", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def writer(tmp_path):
    """Another process that has staged a file and waits."""
    command = [sys.executable, "-c", WRITER, tmp_path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "staged\n"
        yield process
        process.kill()


def test_what_another_writer_has_staged_is_left_alone_while_it_lives(tmp_path, writer):
    """Writers of single files do not lock the folder; a run that does must not remove their work."""
    with exclusive(tmp_path):
        pass
    writer.communicate(timeout=10)
    assert writer.returncode == 0
    assert contents(tmp_path) == {"model.onnx": "new"}


def test_what_a_killed_writer_has_staged_is_removed_by_the_next_run(tmp_path, writer):
    writer.kill()
    writer.wait(10)
    assert len(list(tmp_path.glob(".calib-*"))) == 1
    with exclusive(tmp_path):
        assert list(tmp_path.glob(".calib-*")) == []


def test_a_transaction_within_a_held_folder_and_beside_one_of_another_thread(tmp_path):
    with exclusive(tmp_path), Transaction(tmp_path) as outer:
        outer.stage("a").write_text("1")
        with ThreadPoolExecutor(1) as pool:
            pool.submit(write_one, tmp_path).result()
    assert contents(tmp_path) == {"a": "1", "b": "2"}


def write_one(folder):
    with Transaction(folder) as files:
        files.stage("b").write_text("2")


def test_an_exception_gives_the_folder_back(tmp_path):
    with pytest.raises(KeyboardInterrupt), exclusive(tmp_path):
        assert is_held(tmp_path)
        raise KeyboardInterrupt
    assert not is_held(tmp_path)


def test_different_folders_are_held_side_by_side(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    with exclusive(a):
        with exclusive(b):
            assert (is_held(a), is_held(b)) == (True, True)
        assert (is_held(a), is_held(b)) == (True, False)
