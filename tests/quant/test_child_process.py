"""Work in a process of its own: what it leaves and says, how it fails, and that it ends with its parent."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from calib.interrupts import interrupts_deferred
from quant import child_process
from quant.child_process import ChildProcess, Ended, can_have_children
from quant.errors import BuildError
from tests import child_work
from tests.child_work import LONG, Raise, Refuse, Say, appears, nothing

pytestmark = pytest.mark.skipif(not can_have_children(), reason="children end with their parent on Linux only")
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def child(tmp_path):
    """Starts a child, which is over when the test is."""
    started = []

    def start(prepare=nothing):
        started.append(ChildProcess(tmp_path / f"child-{len(started)}", prepare))
        return started[-1]

    yield start
    for each in started:
        each.close()
        assert each.is_over
        assert not each.takes_more
    assert not list(tmp_path.glob("child-*"))


def is_running(pid):
    """A process that has ended and was not waited for is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_it_leaves_files_says_lines_and_when_it_ended(child):
    working = child()
    assert not working.is_over
    before = time.perf_counter()
    text = "a 'quoted' \n line, é"
    given = working.give(Say(text))
    ended = given.ended()
    assert (ended.error, ended.notes) == ("", (text, "done"))
    assert before <= ended.begun <= ended.moment <= time.perf_counter()
    assert (given.folder / "file").read_text() == text
    assert given.ended() == ended


def test_it_does_one_piece_of_work_after_another_and_ends_with_the_last_one_that_is_waited_for(child, tmp_path):
    working = child()
    first = working.give(child_work.Wait(tmp_path / "go"))
    second, third = working.give(Raise(BuildError("no kernel"))), working.give(Say("third"))
    assert not any(each.is_over for each in (first, second, third))
    (tmp_path / "go").touch()
    spans = [(each.ended().begun, each.ended().moment) for each in (first, second, third)]
    assert [moment for span in spans for moment in span] == sorted(moment for span in spans for moment in span)
    assert [each.ended().error for each in (first, second, third)] == ["", "no kernel", ""]
    assert working.takes_more
    third.settle()
    first.settle()
    assert (third.folder / "file").read_text() == "third"  # the second may still be looked at
    second.settle()
    assert working.is_over


def test_what_it_had_still_to_do_is_told_when_it_crashes(child):
    crashing = child()
    done, crash, after = (crashing.give(work) for work in (Say("done"), child_work.crash, Say("never")))
    told = "its process was ended by signal 6: terminate called: \ufffd no kernel"
    assert after.ended() == crash.ended() == Ended(told)
    assert done.ended().notes == ("done", "done")


def test_one_that_gets_no_more_work_does_what_it_has(child, tmp_path):
    finishing = child()
    first, second = finishing.give(child_work.Wait(tmp_path / "go")), finishing.give(Say("second"))
    threading.Timer(0.2, (tmp_path / "go").touch).start()
    finishing.finish()
    assert finishing.is_over
    assert [each.ended().error for each in (first, second)] == ["", ""]
    assert (second.folder / "file").read_text() == "second"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (BuildError("int8: no kernel; use fp16"), "int8: no kernel; use fp16"),  # of this project: as it is
        (ValueError("half of a character: \udcff"), r"ValueError: half of a character: \udcff"),
        (MemoryError(), "MemoryError: "),
    ],
)
def test_an_error_is_told(child, error, told):
    failing = child().give(Raise(error))
    assert failing.ended().error == told
    assert failing.ended().notes == ("about to fail",)


def test_an_error_of_the_preparation_is_told_when_work_is_given(child):
    failing = child(Refuse(BuildError("no GPU")))
    failing.wait(lambda: failing.is_over)
    given = failing.give(Say("never"))
    assert given.ended().error == "no GPU"
    assert not (given.folder / "file").exists()


@pytest.mark.parametrize(
    ("work", "told"),
    [
        (child_work.crash, "its process was ended by signal 6: terminate called: \ufffd no kernel"),
        (child_work.leave_at_once, "its process ended with exit code 3"),
    ],
)
def test_a_process_that_ends_by_itself_is_told_with_its_last_words(child, work, told):
    assert child().give(work).ended() == Ended(told)


@pytest.mark.parametrize(("error", "told"), [("int8: no space left", "int8: no space left"), ("", "Is a directory")])
def test_one_that_cannot_write_how_it_ended_ends_at_once_all_the_same(child, monkeypatch, error, told):
    monkeypatch.setattr(child_process, "_STALL_SECONDS", 60.0)
    said = child().give(child_work.Unwritable(error)).ended().error
    assert said.startswith("its process ended with exit code 1: ")
    assert told in said


def test_one_that_does_nothing_is_ended(child, monkeypatch):
    """It takes no time of the processor, as two threads that wait for each other."""
    hung = child()
    holding, after = hung.give(child_work.hold_python), hung.give(Say("never"))
    appears(holding.folder / "holding")
    monkeypatch.setattr(child_process, "_STALL_SECONDS", 0.3)
    assert holding.ended() == after.ended() == Ended("its process did nothing for 0.3 s")
    assert hung.is_over


def test_without_proc_there_are_no_children(monkeypatch):
    """Each of them would seem to do nothing, and be ended."""

    def hidden(path, **_):
        raise FileNotFoundError(2, "No such file or directory", str(path))

    monkeypatch.setattr(child_process.Path, "read_text", hidden)
    assert not can_have_children()


def test_one_that_computes_gets_on_however_long_it_takes(monkeypatch):
    now = time.monotonic()
    monkeypatch.setattr(child_process.time, "monotonic", lambda: now)
    monkeypatch.setattr(child_process, "_STALL_CPU_SECONDS", 0.05)
    progress = child_process._Progress(os.getpid())
    for _ in range(2):
        before = time.process_time()
        while time.process_time() < before + 0.1:
            pass
        now += 1.5 * child_process._STALL_SECONDS
        assert not progress.has_stalled()
    now += 0.9 * child_process._STALL_SECONDS
    assert not progress.has_stalled()
    now += 0.2 * child_process._STALL_SECONDS
    assert progress.has_stalled()


@pytest.fixture
def ctrl_c():
    """As from a terminal: tests that run in the background inherit an ignored Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_ends_the_waiting_and_does_not_reach_the_child(child):
    """A terminal sends it to every process of its session."""
    waiting = child()
    pid = waiting.pid
    assert os.getsid(pid) == pid
    given = waiting.give(child_work.hold_python)
    appears(given.folder / "holding")
    with pytest.raises(KeyboardInterrupt), interrupts_deferred():
        os.kill(os.getpid(), signal.SIGINT)
        given.ended()
        pytest.fail("it goes on")
    assert is_running(pid)
    waiting.close()
    assert not is_running(pid)


PARENT = """
import sys, time
from pathlib import Path
from quant.child_process import ChildProcess
from tests.child_work import hold_python, nothing
folder = Path(sys.argv[1])
spare, working = ChildProcess(folder / "spare", nothing), ChildProcess(folder / "working", nothing)
working.give(hold_python)
print(spare.pid, working.pid, flush=True)
time.sleep(3600)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_no_child_outlives_its_parent(tmp_path, number):
    """Neither one that waits for work nor one whose Python is held by what it calls."""
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, filter(None, [ROOT, os.environ.get("PYTHONPATH")])))},
    ) as parent:
        children = [int(pid) for pid in parent.stdout.readline().split()]
        appears(tmp_path / "working" / "work-1" / "holding")
        parent.send_signal(number)
    assert len(children) == 2
    end = time.monotonic() + LONG
    while any(map(is_running, children)):
        assert time.monotonic() < end
        time.sleep(0.02)


def test_one_whose_parent_has_ended_before_it_looks_ends_at_once(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", "from quant.child_process import main; main()"],
        input=f'["{tmp_path}", {os.getpid() + 1}]\n'.encode(),
        check=False,
        timeout=LONG,
        cwd=ROOT,
    )
    assert done.returncode == 1
    assert list(tmp_path.iterdir()) == []
