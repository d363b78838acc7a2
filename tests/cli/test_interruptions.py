"""Ctrl-C, a kill, two runs at once: the older files stay whole, and the next run works."""

import io
import json
import shutil
import signal

import pytest
from PIL import Image

OPTIONS = ("run", "--num-images", 36)  # all images calibrate, all are evaluated


@pytest.fixture
def red_dot():
    """The bytes of an image that is not in any project."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (250, 1, 1)).save(file, format="PNG")
    return file.getvalue()


@pytest.fixture
def waiting(slow_image, red_dot, start_calib):
    """Starts a run that blocks when it reads an image for the n-th time, because the image's bytes do not come.

    Returns the process and the function that provides the bytes.
    """

    def start(project, image, *options, reading):
        opened = slow_image(project / image, red_dot)
        process = start_calib(*options, cwd=project)
        for _ in range(reading - 1):
            opened(process)()
        return process, opened(process)

    return start


@pytest.fixture
def calibrating(finished, waiting):
    """A run that was stopped in the middle of calibrating; the first reading is for the image's hash."""
    return waiting(finished, "imgs/red/05.png", *OPTIONS, reading=2)


@pytest.fixture
def evaluating(finished, waiting):
    """The same, in the middle of evaluating."""
    (finished / "test" / "red").mkdir(parents=True)
    (finished / "classes.txt").write_text("blue\ngreen\nred\n")
    options = ("--eval", "test", "--classes", "classes.txt", "--preprocess", "imagenet-tf")
    return waiting(finished, "test/red/05.png", "run", *options, reading=2)  # the first reading is to read labels


def test_ctrl_c_while_calibrating_ends_with_130_and_leaves_the_older_files(finished, snapshot, calibrating, finish):
    older = snapshot(finished / "calib-out")
    process, release = calibrating
    process.send_signal(signal.SIGINT)
    release()
    result = finish(process)
    assert result.code == 130
    assert result.err.splitlines()[-1] == "calib: interrupted; older files are untouched"
    assert "Traceback" not in result.err
    assert result.out == ""
    assert snapshot(finished / "calib-out") == older


def test_ctrl_c_while_evaluating_ends_with_130_and_leaves_a_whole_cache(
    calib, finished, snapshot, evaluating, finish, report
):
    reports = {"report.json", "report.md", "report.html", "model.int8.onnx"}
    older = snapshot(finished / "calib-out")
    process, release = evaluating
    process.send_signal(signal.SIGINT)
    release()
    result = finish(process)
    assert result.code == 130
    assert "Traceback" not in result.err
    kept = ", ".join(f"calib-out/calibration.{end}" for end in ("cache", "h5", "json"))
    assert result.err.splitlines()[-1] == (
        f"calib: interrupted; {kept} complete and kept, all other older files are untouched"
    )
    newer = snapshot(finished / "calib-out")
    assert {path: state for path, state in newer.items() if path.name in reports} == {
        path: state for path, state in older.items() if path.name in reports
    }
    # What was calibrated before the interruption is not lost: it is complete, and is reused.
    assert calib("run", "--preprocess", "imagenet-tf", "--cache-only", cwd=finished).code == 0
    assert report(finished)["calibration"]["how"] == "reused"


def test_a_kill_while_calibrating_leaves_the_older_files_and_the_next_run_works(
    calib, finished, snapshot, calibrating, finish, red_dot, report
):
    older = snapshot(finished / "calib-out")
    process, release = calibrating
    process.kill()
    release()
    assert finish(process).code == -signal.SIGKILL
    assert snapshot(finished / "calib-out") == older
    image = finished / "imgs" / "red" / "05.png"
    image.unlink()
    image.write_bytes(red_dot)
    assert calib(*OPTIONS, cwd=finished).code == 0
    assert report(finished)["calibration"]["how"] == "calibrated"


def test_what_a_killed_run_was_writing_is_cleared_away(calib, finished, snapshot):
    left = finished / "calib-out" / ".calib-scratch-k1lled00"
    left.mkdir()
    (left / ".calib-owner").touch()  # what a writer locks as long as it lives
    (left / "calibration.h5").write_bytes(b"half a fi")
    assert calib("run", cwd=finished).code == 0
    assert snapshot(finished / "calib-out")  # finds scratch files, if there are any
    assert not left.exists()


def test_of_two_runs_in_one_folder_the_second_stops_at_once_and_the_first_is_unharmed(
    finished, snapshot, calibrating, start_calib, finish, report
):
    older = snapshot(finished / "calib-out")
    first, release = calibrating

    second = finish(start_calib("run", "--quiet", cwd=finished))
    assert second.code == 1
    assert "calib-out: another calib run is writing here; wait for it to end, or choose another folder with --out" in (
        second.error
    )
    assert snapshot(finished / "calib-out") == older
    assert first.poll() is None

    release(last=True)
    result = finish(first)
    assert result.code == 0, result.err
    assert report(finished)["calibration"]["images"] == 36
    assert json.loads((finished / "calib-out" / "calibration.json").read_text())["source"]["images"][0]


def test_two_runs_with_one_cache_and_two_folders_do_not_meet_either(calib, colours, waiting, finish):
    options = (*OPTIONS, "--quiet", "--cache", "shared/mine.cache")
    first, release = waiting(colours, "imgs/red/05.png", *options, "--out", "one", reading=2)
    second = calib(*options, "--out", "two", cwd=colours)
    assert second.code == 1
    assert "shared: another calib run is writing here" in second.err
    release(last=True)
    assert finish(first).code == 0


PRESSED = """
import os, signal, sys, weakref
signal.signal(signal.SIGINT, signal.default_int_handler)
from calib.cli import main
import quant.report.views.svg as svg

def press():
    os.kill(os.getpid(), signal.SIGINT)

class Thing:
    pass

def in_a_callback(drawing=svg.svg_from_drawing):
    def draw(*arguments, **options):
        thing = Thing()
        reference = weakref.ref(thing, lambda gone: press())
        del thing  # Python can only print what a callback raises
        return drawing(*arguments, **options)
    return draw

def as_another_error(drawing=svg.svg_from_drawing):
    def draw(*arguments, **options):
        try:
            press()
        except KeyboardInterrupt:
            raise ValueError("Invalid affine transformation matrix")
    return draw

def plainly(drawing=svg.svg_from_drawing):
    def draw(*arguments, **options):
        press()
    return draw

import quant.report.views.charts as charts
charts.svg_from_drawing = globals()[sys.argv.pop(1)]()
main()
"""


@pytest.mark.parametrize("how", ["plainly", "in_a_callback", "as_another_error"])
def test_ctrl_c_while_the_report_is_drawn_is_never_lost(finished, snapshot, finish, start_script, how):
    older = snapshot(finished / "calib-out")
    result = finish(start_script(PRESSED, how, "run", "--batch-size", 7, cwd=finished))
    assert result.code == 130, result.err
    assert result.err.splitlines()[-1] == "calib: interrupted; older files are untouched"
    assert "Traceback" not in result.err
    assert "ignored" not in result.err
    assert snapshot(finished / "calib-out") == older


def test_an_output_folder_that_vanishes_is_an_error(colours, calibrating_anew, finish):
    process, release = calibrating_anew
    shutil.rmtree(colours / "calib-out")
    release(last=True)
    result = finish(process)
    assert result.code == 1, result.err
    assert "calib-out: was removed or replaced while this run was writing to it" in result.err
    assert not (colours / "calib-out").exists()


@pytest.fixture
def calibrating_anew(colours, waiting):
    """A first run, stopped in the middle of calibrating."""
    return waiting(colours, "imgs/red/05.png", *OPTIONS, reading=2)


def test_a_first_run_killed_between_its_files_can_be_run_again(calib, colours, finish, start_script):
    """With --cache, half a calibration used to be taken for someone else's files, and refused for ever."""
    killed = """
import os, signal, sys
from pathlib import Path
from calib.cli import main
replace, left = Path.replace, [1]
def counted(self, target):
    if Path(target).parent.name == "mine":
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)
    return replace(self, target)
Path.replace = counted
main()
"""
    options = ("run", "--cache", "mine/my.cache")
    assert finish(start_script(killed, *options, cwd=colours)).code == -signal.SIGKILL
    assert 1 <= len(list((colours / "mine").glob("my.*"))) < 3
    again = calib(*options, cwd=colours)
    assert again.code == 0, again.err
    assert "fits and is used again" in again.err
    assert sorted(path.name for path in (colours / "mine").iterdir()) == [".lock", "my.cache", "my.h5", "my.json"]
