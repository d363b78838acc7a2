"""Places that cannot be written to, disks that fill up, and readers that go away."""

import os
import pty
import shutil
import subprocess

import pytest
from PIL import Image


def change_an_image(project):
    Image.new("RGB", (8, 8), (250, 1, 1)).save(project / "imgs" / "red" / "05.png")


def fill(folder, *, leave):
    """Fills a disk, except for some bytes."""
    free = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize
    with (folder / "filler").open("wb") as file:
        file.write(bytes(free - leave))


# Room for only the cache; for the cache and part of the statistics.
@pytest.mark.parametrize("leave", [8 << 10, 20 << 10])
def test_a_disk_that_fills_leaves_the_older_files(start_calib, finish, finished, small_disk, snapshot, leave):
    out = small_disk("size=1m") / "out"
    shutil.copytree(finished / "calib-out", out)
    fill(out.parent, leave=leave)
    change_an_image(finished)
    older = snapshot(out)
    result = finish(start_calib("run", "--num-images", 36, "--quiet", "--out", out, cwd=finished))
    assert result.code == 1
    last = result.err.splitlines()[-1]
    assert last.startswith(f"calib: error: {out}: could not be written: No space left on device")
    assert "Traceback" not in result.err
    assert snapshot(out) == older


def test_a_disk_that_fills_with_the_report_leaves_the_older_report(calib, finished, small_disk, snapshot):
    out = small_disk("size=1m") / "out"
    shutil.copytree(finished / "calib-out", out)
    fill(out.parent, leave=0)
    older = snapshot(out)
    result = calib("run", "--quiet", "--out", out, cwd=finished)  # the cache fits: only reports are new
    assert result.code == 1
    assert f"{out}: could not be written: No space left on device; the older files in it are untouched" in result.error
    assert snapshot(out) == older


def test_a_disk_that_fills_under_a_pack_leaves_the_older_pack(start_calib, finish, colours, small_disk, snapshot):
    disk = small_disk("size=64k")
    options = ("pack", "imgs", disk / "imgs.h5", "--quiet")
    assert finish(start_calib(*options, cwd=colours)).code == 0
    fill(disk, leave=4 << 10)
    older = snapshot(disk)
    result = finish(start_calib(*options, "--size", "32x32", cwd=colours))  # 36 times 3 kB
    assert result.code == 1
    assert result.error == f"calib: error: {disk / 'imgs.h5'}: cannot be written: No space left on device"
    assert snapshot(disk) == older


def test_a_read_only_folder_is_told_before_any_work(calib, finished, small_disk, snapshot):
    out = small_disk("size=1m") / "out"
    shutil.copytree(finished / "calib-out", out)
    subprocess.run(["mount", "-o", "remount,ro", str(out.parent)], check=True)
    older = snapshot(out)
    result = calib("run", "--quiet", "--out", out, cwd=finished)
    assert result.code == 1
    assert f"{out}: cannot be written to: Read-only file system" in result.error
    assert snapshot(out) == older


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write where it is forbidden")
def test_a_forbidden_folder_is_told(calib, colours):
    (colours / "calib-out").mkdir(mode=0o555)
    result = calib("run", "--quiet", cwd=colours)
    assert result.code == 1
    assert "calib-out: cannot be written to: Permission denied" in result.error


def test_a_trusted_cache_may_lie_on_a_read_only_disk(calib, finished, small_disk):
    disk = small_disk("size=1m")
    shutil.copy(finished / "calib-out" / "calibration.cache", disk / "theirs.cache")
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    assert calib("run", "--cache", disk / "theirs.cache", "--trust-cache", cwd=finished).code == 0


def test_a_file_in_the_place_of_the_folder_is_told_and_kept(calib, colours):
    (colours / "calib-out").write_text("precious")
    result = calib("run", "--quiet", cwd=colours)
    assert result.code == 1
    assert "calib-out: expected a folder to write to, found a file; choose another folder" in result.error
    assert (colours / "calib-out").read_text() == "precious"


def test_a_folder_below_a_file_is_told(calib, colours):
    result = calib("run", "--quiet", "--out", "model.onnx/out", cwd=colours)
    assert result.code == 1
    assert "model.onnx/out: cannot be written to: Not a directory" in result.error


def test_the_users_model_is_never_overwritten(calib, colours):
    model = (colours / "model.onnx").rename(colours / "model.int8.onnx")
    older = model.read_bytes()
    result = calib("run", "--quiet", "--model", "model.int8.onnx", "--out", ".", cwd=colours)
    assert result.code == 1
    assert "model.int8.onnx: would be overwritten by this run; rename it, or choose another --out" in result.error
    assert model.read_bytes() == older


def test_a_reader_that_goes_away_early_gets_no_traceback(start_calib, finish, finished):
    reading, writing = os.pipe()
    process = start_calib("run", "--json", cwd=finished, stdout=writing)
    os.close(writing)
    os.close(reading)
    result = finish(process)
    assert result.code == 1
    assert "Traceback" not in result.err
    assert "BrokenPipe" not in result.err


def test_head_gets_the_first_line(start_calib, finish, finished):
    process = start_calib("cache", "show", "calib-out/calibration.cache", cwd=finished)
    head = subprocess.run(["head", "-1"], stdin=process.stdout, capture_output=True, text=True, check=True)
    process.stdout.close()
    process.stdout = None
    assert finish(process).err == ""
    assert head.stdout.startswith("calib-out/calibration.cache: minmax, ")


def test_standard_output_that_is_closed_from_the_start_is_no_error(start_calib, finish, finished):
    show = ("cache", "show", "calib-out/calibration.cache")
    process = start_calib(*show, cwd=finished, stdout=None, preexec_fn=lambda: os.close(1))
    result = finish(process)
    assert (result.code, result.err) == (0, "")


def test_a_terminal_shows_progress_and_standard_output_stays_clean(start_calib, colours, report, shown_on):
    controller, terminal = pty.openpty()
    process = start_calib("run", "--json", cwd=colours, stderr=terminal)
    os.close(terminal)
    shown = shown_on(controller)
    out = process.stdout.read()
    assert process.wait() == 0
    assert b"Calibrating" in shown
    assert b"Evaluating" in shown
    assert out == (colours / "calib-out" / "report.json").read_text()


def test_off_a_terminal_there_is_no_progress_bar(calib, colours):
    result = calib("run", cwd=colours)
    assert "Calibrating" not in result.out + result.err
    assert "\x1b" not in result.out + result.err
