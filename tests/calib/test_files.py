import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from calib.algorithms import MinMax
from calib.caches.cache import cache_from_amax
from calib.caches.provenance import Calibration, Source, write_calibration
from calib.commits import commits_noted
from calib.errors import CalibrationError
from calib.files import Transaction, exclusive
from calib.histograms.statistics import Statistics
from calib.interrupts import interrupts_noted
from tests.folders import contents, write_one

HOLDER = """
import sys
from pathlib import Path
from calib.files import exclusive
with exclusive(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


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


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("linked", [False, True])
def test_a_pipe_in_the_place_of_a_file_is_not_replaced(tmp_path, linked):
    """As /dev/stdout and /dev/null would be, by who may write there."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "a").write_text("old")
    if linked:
        (tmp_path / "link").symlink_to(tmp_path / "pipe")
    name = "link" if linked else "pipe"
    with pytest.raises(CalibrationError, match=f"'{name}' is no regular file there"), Transaction(tmp_path) as files:
        files.stage("a").write_text("new")
        files.stage(name).write_text("new")
    assert (tmp_path / "pipe").is_fifo()
    assert (tmp_path / "link").is_symlink() == linked
    assert (tmp_path / "a").read_text() == "old"


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


@pytest.fixture
def terminal():
    """Restore Ctrl-C as in a terminal: a background job inherits it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("how", ["well", signal.SIGKILL])
def test_a_folder_is_held_by_one_process_until_it_ends(tmp_path, holder, how):
    with pytest.raises(CalibrationError, match=r"another calib run is writing here; .*--out"), exclusive(tmp_path):
        pytest.fail("both hold the folder")
    holder.end(how)
    assert not is_held(tmp_path)


def test_a_file_that_cannot_be_replaced_puts_the_others_back(tmp_path, monkeypatch):
    for name in "abcd":
        (tmp_path / name).write_text(f"old {name}")
    replace = Path.replace

    def fails(self, target):
        if Path(target) == tmp_path / "c" and self.parent.name == "new":
            raise PermissionError(errno.EPERM, "Operation not permitted")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", fails)
    message = "could not be written: Operation not permitted; the older files in it are untouched"
    with pytest.raises(CalibrationError, match=message), Transaction(tmp_path) as files:
        for name in "abcx":
            files.stage(name).write_text("new")
        files.discard("d")
    assert contents(tmp_path) == {name: f"old {name}" for name in "abcd"}


def test_without_links_the_older_files_are_copied(tmp_path, monkeypatch):
    def no_links(*arguments, **options):
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", no_links)
    (tmp_path / "a").write_text("old")
    with Transaction(tmp_path) as files:
        files.stage("a").write_text("new")
    assert contents(tmp_path) == {"a": "new"}


def test_ctrl_c_while_files_are_moved_waits_until_all_are(tmp_path, monkeypatch, terminal):
    (tmp_path / "a").write_text("old")
    replace = Path.replace

    def pressed(self, target):
        os.kill(os.getpid(), signal.SIGINT)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", pressed)
    written = []
    with commits_noted(written), pytest.raises(KeyboardInterrupt), Transaction(tmp_path) as files:
        files.stage("a").write_text("new")
        files.stage("b").write_text("new")
    assert contents(tmp_path) == {"a": "new", "b": "new"}
    assert written == [(tmp_path / "a", tmp_path / "b")]


def test_a_ctrl_c_that_was_dropped_stops_before_the_first_file_is_moved(tmp_path, terminal):
    (tmp_path / "a").write_text("old")

    class Dropping:
        def __del__(self):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0)  # Python raises here, in a finalizer, which can only print

    written = []
    with interrupts_noted() as interrupts, commits_noted(written):
        with pytest.raises(KeyboardInterrupt), Transaction(tmp_path) as files:
            files.stage("a").write_text("new")
            Dropping()
            assert interrupts.pressed
        assert written == []
    assert contents(tmp_path) == {"a": "old"}


@pytest.mark.parametrize("again", [False, True])
def test_a_held_folder_that_vanishes_is_an_error_and_is_not_made_anew(tmp_path, again):
    folder = tmp_path / "out"
    message = "out: was removed or replaced while this run was writing to it"
    with pytest.raises(CalibrationError, match=message), exclusive(folder):
        write_one(folder)
        shutil.rmtree(folder)
        if again:
            folder.mkdir()
            (folder / ".lock").touch()
        with pytest.raises(CalibrationError, match=message):
            write_one(folder)
        assert folder.exists() == again
    assert folder.exists() == again


def test_a_lock_that_is_a_link_is_named(tmp_path):
    (tmp_path / "precious").write_text("x")
    (tmp_path / ".lock").symlink_to(tmp_path / "precious")
    with pytest.raises(CalibrationError, match="lock: expected a lock file, found a link; remove it"):
        exclusive(tmp_path).__enter__()
    assert (tmp_path / "precious").read_text() == "x"


def test_a_transaction_within_a_held_folder_and_beside_one_of_another_thread(tmp_path):
    with exclusive(tmp_path), Transaction(tmp_path) as outer:
        outer.stage("a").write_text("1")
        with ThreadPoolExecutor(1) as pool:
            pool.submit(write_one, tmp_path).result()
    assert contents(tmp_path) == {"a": "1", "b": "2"}


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
