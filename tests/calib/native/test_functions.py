"""Compiled functions are the same whether numba has just compiled them or a file has kept them, whatever the file."""

import os
import subprocess
import sys

import numpy as np
import pytest

from calib.native import functions, object_files
from calib.native.functions import NativeFunction
from calib.native.machine_code import address_of_code
from calib.native.object_files import ObjectCode, keep, key_of_functions, read_kept

LOOPS = "tests.calib.native.loops"
CODE = ObjectCode(b"\x7fELF\n\x00 code\n", "total", ("log", "exp"))


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Where object code is kept."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def total(values):
    """A process's first call of the function."""
    values = np.array(values, np.int64)
    return NativeFunction(LOOPS, "total", "pid")(values.ctypes.data, len(values), 2.0)


def no_numba(*_):
    raise AssertionError("numba is asked to compile")


def test_a_function_is_compiled_once_and_loaded_from_its_file_later(folder, monkeypatch):
    assert total([1, -5, 1 << 40]) == (1 << 40) - 2
    assert [path.suffix for path in folder.iterdir()] == [".native"]  # and nothing half-written
    monkeypatch.setattr("calib.native.compiler.compiled", no_numba)
    assert total([1, -5, 1 << 40]) == (1 << 40) - 2
    assert total([]) == 2


@pytest.mark.parametrize("damage", ["empty", "cut", "bit", "other"])
def test_a_damaged_file_is_not_loaded_but_made_again(folder, damage, monkeypatch):
    assert total([3]) == 5
    (path,) = folder.iterdir()
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    path.write_bytes({"empty": b"", "cut": whole[:-1], "bit": bytes(flipped), "other": b"#!/bin/sh\n"}[damage])
    assert total([3]) == 5
    assert [*folder.iterdir()] == [path]
    monkeypatch.setattr("calib.native.compiler.compiled", no_numba)
    assert total([3]) == 5


def test_code_comes_back_as_it_was_and_only_under_its_own_key(folder):
    key, other = (key_of_functions((LOOPS,), name) for name in ("total(p)", "total(i)"))
    assert key.digest != other.digest
    assert read_kept(key) is None
    path = keep(key, CODE)
    assert read_kept(key) == CODE
    path.rename(path.with_name(object_files._file_name(other)))  # as of another processor, or of other source
    assert read_kept(other) is None


def test_the_key_depends_on_the_source_the_processor_and_the_compiler(monkeypatch, tmp_path):
    def digest():
        return key_of_functions((LOOPS, "tests.calib.native.test_functions"), "total(p)").digest

    found = [digest(), digest()]
    assert found[0] == found[1]
    monkeypatch.setattr("llvmlite.binding.get_host_cpu_name", lambda: "another")
    found.append(digest())
    source, version = tmp_path / "changed.py", tmp_path / "_version.py"
    monkeypatch.setattr(object_files, "_source", lambda _: source)
    for path, text in ((source, "2"), (version, "1"), (source, "3"), (version, "2")):
        path.write_text(f"CONSTANT = {text}\n")
        found.append(digest() if version.exists() else None)
    assert found[3] is None
    assert len(set(found)) == len(found) - 1


def test_code_that_needs_what_the_process_lacks_is_not_loaded():
    """LLVM would end the process."""
    assert address_of_code(ObjectCode(b"never looked at", "total", ("log", "calib_has_no_such_function"))) is None


def test_code_that_needs_numba_is_not_kept(folder):
    assert NativeFunction(LOOPS, "refuses", "i")(41) == 42
    assert not folder.exists()


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="the superuser may write everywhere")
def test_without_a_folder_to_keep_code_in_it_is_compiled_each_time(folder):
    folder.parent.chmod(0o500)
    assert total([3]) == 5


def test_a_folder_that_cannot_be_made_is_no_error(folder):
    folder.write_text("a file")
    assert total([3]) == 5
    assert folder.read_text() == "a file"


def test_what_a_plain_calibration_needs_is_loaded_without_numba(monkeypatch):
    """The searches too, though they need the C library's logarithm."""
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    script = (
        "import sys, numpy as np\n"
        "from calib.algorithms import entropy_amax, mse_amax\n"
        "from calib.histograms.histogram import Histogram\n"
        "h = Histogram()\n"
        "h.add(np.arange(-999.0, 5000))\n"
        "print(h.count, entropy_amax(h), mse_amax(h), 'numba' in sys.modules)\n"
    )
    runs = [
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=600).stdout
        for _ in range(2)
    ]
    count, entropy, mse, loaded = runs[1].split()
    assert (count, loaded) == ("5999", "False")
    assert runs[0].split()[:3] == [count, entropy, mse]
    assert all(4900 < float(amax) < 8192 for amax in (entropy, mse))


def test_arguments_have_a_type_in_c_and_in_numba():
    from calib.native import compiler

    assert functions.ARGUMENTS.keys() == compiler._TYPES.keys()
