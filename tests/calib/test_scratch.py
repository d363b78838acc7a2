"""Scratch folders: who owns them, and what a kill leaves in them."""

import json
import subprocess
import sys

import pytest

from calib.files import Transaction, exclusive
from tests.folders import contents, write_one
from tests.kills import run_script


def test_scratch_of_a_killed_run_is_removed_and_nothing_else(tmp_path):
    left = tmp_path / ".calib-scratch-a1b2c3d4"
    (left / "new").mkdir(parents=True)
    (left / "new" / "model.onnx").write_text("half")
    (left / ".calib-owner").touch()
    (tmp_path / ".calib-scratch-justmade").mkdir()
    (tmp_path / "calibration.cache").write_text("x")
    with exclusive(tmp_path):
        assert contents(tmp_path) == {"calibration.cache": "x"}


@pytest.mark.parametrize(
    "name", [".calib-notes", ".calib-scratch-", ".calib-scratch-old-work", ".calib-scratch-mine1234"]
)
@pytest.mark.parametrize("inside", [(), ("diary",), ("commit.json", "new/x"), (".owner",), (".lock",)])
def test_the_user_s_own_folders_stay_whatever_their_names(tmp_path, name, inside):
    if not inside and name == ".calib-scratch-mine1234":
        pytest.skip("an empty folder with exactly such a name holds nothing")
    mine = tmp_path / name
    mine.mkdir()
    for file in inside:
        (mine / file).parent.mkdir(exist_ok=True)
        (mine / file).write_text("mine")
    with exclusive(tmp_path):
        write_one(tmp_path)
    assert mine.is_dir()
    assert {path.relative_to(mine).as_posix() for path in mine.rglob("*") if path.is_file()} == set(inside)


def test_a_link_that_is_called_like_scratch_leads_nowhere(tmp_path):
    precious = tmp_path / "elsewhere"
    (precious / "new").mkdir(parents=True)
    (precious / ".calib-owner").touch()
    out = tmp_path / "out"
    out.mkdir()
    (out / ".calib-scratch-a1b2c3d4").symlink_to(precious)
    with exclusive(out):
        pass
    assert (precious / ".calib-owner").exists()


@pytest.mark.parametrize("name", ["../victim", "/tmp/victim", "..", "a/b", "", "\ud800", 5, None])
def test_a_record_from_elsewhere_does_not_lead_out_of_the_folder(tmp_path, name):
    (tmp_path / "victim").write_text("precious")
    scratch = tmp_path / "out" / ".calib-scratch-a1b2c3d4"
    (scratch / "new").mkdir(parents=True)
    (scratch / "victim").write_text("forged")
    (scratch / ".calib-owner").touch()
    record = {"written": [name], "removed": [name], "saved": [name]}
    (scratch / "commit.json").write_text(json.dumps(record))
    with exclusive(tmp_path / "out"):
        pass
    assert (tmp_path / "victim").read_text() == "precious"
    assert contents(tmp_path / "out") == {}


@pytest.mark.parametrize("record", ["", "[", "[" * 100_000, "5", "{}", '{"written": 5}', "\udcff"])
def test_a_record_that_is_none_undoes_nothing(tmp_path, record):
    scratch = tmp_path / ".calib-scratch-a1b2c3d4"
    scratch.mkdir()
    (scratch / ".calib-owner").touch()
    (scratch / "commit.json").write_text(record, encoding="utf-8", errors="surrogateescape")
    (tmp_path / "a").write_text("mine")
    with exclusive(tmp_path):
        pass
    assert contents(tmp_path) == {"a": "mine"}


KILLS = """
import json, sys
from pathlib import Path
from calib.files import Transaction
from calib.scratch import recover
from tests.kills import killed_at_each_step

folder = Path(sys.argv[1])
OLD = {"a": "old a", "b": "old b", "c": "old c", "d": "old d"}
NEW = {"a": "new a", "b": "new b", "c": "old c", "e": "new e"}

def set_up():
    for path in folder.iterdir():
        path.unlink()
    for name, text in OLD.items():
        (folder / name).write_text(text)

def work():
    with Transaction(folder) as files:
        for name in "abe":
            files.stage(name).write_text(NEW[name])
        files.discard("d")
        files.discard("never there")

seen = []
def look(step):
    recover(folder)
    found = {path.name: path.read_text() for path in folder.iterdir()}
    assert found in (OLD, NEW), (step, found)
    seen.append("new" if found == NEW else "old")
    work()
    assert {path.name: path.read_text() for path in folder.iterdir()} == NEW, step
    set_up()

set_up()
kills = killed_at_each_step(work, look)
print(json.dumps([kills, seen]))
"""


def test_a_kill_at_any_step_leaves_all_old_or_all_new_files(tmp_path):
    kills, seen = run_script(KILLS, tmp_path)
    assert kills > 20
    turn = seen.index("new")
    assert set(seen[:turn]) == {"old"}
    assert set(seen[turn:]) == {"new"}
    assert 8 < turn < kills - 5  # there are several steps before the record is written, and several after it


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


@pytest.mark.parametrize("by", [exclusive, Transaction])
def test_what_a_killed_writer_has_staged_is_removed_by_the_next_run_or_writer(tmp_path, writer, by):
    writer.kill()
    writer.wait(10)
    assert len(list(tmp_path.glob(".calib-*"))) == 1
    with by(tmp_path):
        assert not list(tmp_path.glob(".calib-*/new/*"))
    assert list(tmp_path.glob(".calib-*")) == []


BUSY = """
import sys
from pathlib import Path
from calib.files import Transaction
for i in range(25):
    with Transaction(Path(sys.argv[1])) as files:
        for name in "ab":
            files.stage(name).write_text(f"{sys.argv[2]} {i} " + "x" * 100_000)
"""


def test_writers_and_runs_at_the_same_time_lose_nothing_and_tear_nothing(tmp_path):
    command = [sys.executable, "-c", BUSY, tmp_path]
    writers = [subprocess.Popen([*command, str(i)], stderr=subprocess.PIPE, text=True) for i in range(3)]
    while any(writer.poll() is None for writer in writers):
        with exclusive(tmp_path):
            write_one(tmp_path)
            (tmp_path / "b").unlink(missing_ok=True)
    said = [writer.communicate()[1] for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0, 0], said
    write_both(tmp_path)
    assert contents(tmp_path) == {"a": "last", "b": "last"}


def write_both(folder):
    with Transaction(folder) as files:
        for name in "ab":
            files.stage(name).write_text("last")


def test_scratch_goes_where_no_more_files_can_be_opened(tmp_path):
    """All descriptors but the one of its own lock are taken: a removal that opens folders in folders would fail."""
    program = """
import os, resource, sys
from pathlib import Path
from calib.files import Transaction
folder = Path(sys.argv[1])
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
taken = []
try:
    with Transaction(folder) as files:
        (files.stage("deep").parent / "a" / "b" / "c").mkdir(parents=True)
        files.stage("model.onnx").write_text("half")
        try:
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        except OSError:
            raise RuntimeError("no descriptors left") from None
except RuntimeError:
    pass
for descriptor in taken:
    os.close(descriptor)
print(sorted(os.listdir(folder)))
"""
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=False, timeout=100
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")
