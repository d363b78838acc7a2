import contextlib
import errno
import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from tests.outcome import Outcome

ROOT = Path(__file__).resolve().parents[2]
COLOURS = {"blue": (20, 30, 200), "green": (30, 190, 20), "red": (210, 20, 30)}
IMAGES_A_CLASS = 12
# minmax: the entropy search needs more values than the pooled colours of 24 images.
CONFIG = 'model = "model.onnx"\ndata = "imgs"\npreprocess = "unit"\nalgo = "minmax"\nnum_images = 24\nbatch_size = 8\n'
PATIENCE = 300  # seconds until a process that makes no progress fails its test


@pytest.fixture
def start_calib():
    """Starts a command line in its own process; a process that still runs at the end of the test is killed."""
    started = []

    def start(*arguments, cwd, prefix=(), **options):
        # As from a terminal: the tests may run in a background job, whose children inherit an ignored Ctrl-C.
        terminal = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
        python = [sys.executable, "-c", f"{terminal}; from calib.cli import main; main()"]
        path = os.pathsep.join([*map(str, prefix), str(ROOT)])
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = subprocess.Popen(
            [*python, *map(str, arguments)],
            cwd=cwd,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
            **{**streams, **options},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def finish():
    """Waits for a process and returns its outcome."""

    def wait(process):
        out, err = process.communicate(timeout=PATIENCE)
        return Outcome(process.returncode, out or "", err or "")

    return wait


@pytest.fixture
def snapshot():
    """Contents and times of all files of a folder except the lock; fails if there are scratch files."""

    def take(folder):
        files = [path for path in Path(folder).rglob("*") if path.is_file() and path.name != ".lock"]
        assert not list(Path(folder).rglob(".calib-*"))
        return {path.relative_to(folder): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}

    return take


@pytest.fixture
def report():
    """The report.json of a project."""
    return lambda project, out="calib-out": json.loads((project / out / "report.json").read_text())


@pytest.fixture(scope="session")
def save_graph():
    """Writes a graph as a model with a given opset."""

    def save(graph, path, opset=17):
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path)
        return path

    return save


@pytest.fixture(scope="session")
def write_model(save_graph):
    """Writes the colour classifier: logits are the mean blue, green and red of an image, so its answers are known.

    `before` nodes make the tensor `pixels` out of `input`; `after` nodes make `features` out of `colours`.
    """

    def write(path, *, batch="N", channels=3, size=8, opset=17, before=(), after=(), constants=None):
        def constant(name, values):
            return numpy_helper.from_array(np.asarray(values, np.float32), name)

        reverse = np.zeros((3, channels, 1, 1), np.float32)
        for i in range(3):
            reverse[i, (2 - i) % channels] = 1  # RGB to the alphabetical order of the classes
        nodes = [
            *before,
            helper.make_node("Conv", ["pixels" if before else "input", "weight"], ["colours"], name="conv"),
            *after,
            helper.make_node("GlobalAveragePool", ["features" if after else "colours"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["flat"]),
            helper.make_node("Gemm", ["flat", "identity", "bias"], ["logits"], transB=1, name="fc"),
        ]
        graph = helper.make_graph(
            nodes,
            "colours",
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, [batch, channels, size, size])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, 3])],
            [
                constant("weight", reverse),
                constant("identity", np.eye(3)),
                constant("bias", np.zeros(3)),
                *(constant(name, values) for name, values in (constants or {}).items()),
            ],
        )
        return save_graph(graph, path, opset)

    return write


@pytest.fixture(scope="session")
def colours_master(tmp_path_factory, write_model):
    """A project with 3 classes of 8x8 images, each class in one colour with noise; tests take `colours`, a copy."""
    project = tmp_path_factory.mktemp("colours") / "project"
    generator = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        folder = project / "imgs" / name
        folder.mkdir(parents=True)
        for i in range(IMAGES_A_CLASS):
            pixels = np.clip(np.array(colour) + generator.integers(-15, 16, (8, 8, 3)), 1, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{i:02}.png")
    write_model(project / "model.onnx")
    (project / "calib.toml").write_text(CONFIG)
    return project


@pytest.fixture
def colours(colours_master, tmp_path):
    """The colour project before any run, to change at will."""
    return shutil.copytree(colours_master, tmp_path / "project")


@pytest.fixture(scope="session")
def finished_master(colours_master, tmp_path_factory):
    """The colour project after a run."""
    from quant import run
    from quant.settings.calib_toml import settings_from_options

    project = shutil.copytree(colours_master, tmp_path_factory.mktemp("finished") / "project")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        document = run(settings_from_options({}))
    assert document["verdict"] == "pass"
    return project


@pytest.fixture
def finished(finished_master, tmp_path):
    """The colour project after a run, with the run's files in calib-out, to change at will."""
    return shutil.copytree(finished_master, tmp_path / "finished")


@pytest.fixture
def slow_image(tmp_path):
    """Replaces an image by a file that gives its bytes only when the test provides them.

    Returns a function that waits until a process opens the image and returns another one, which lets it continue. Every
    opening gets a new pipe, so that two readings cannot be taken for one; after the last, it is a plain file.
    """
    numbers = itertools.count()

    def place(image, contents):
        def next_pipe():
            number = next(numbers)
            pipe, link = tmp_path / f"pipe{number}", tmp_path / f"link{number}"
            os.mkfifo(pipe)
            link.symlink_to(pipe)
            link.replace(image)
            return pipe

        waiting = [next_pipe()]

        def opened(process):
            end = time.monotonic() + PATIENCE
            while True:
                try:
                    descriptor = os.open(waiting[-1], os.O_WRONLY | os.O_NONBLOCK)
                    break
                except OSError as error:
                    assert error.errno == errno.ENXIO, error  # nobody is reading yet
                assert process.poll() is None, process.communicate()
                assert time.monotonic() < end
                time.sleep(0.005)
            waiting.append(next_pipe())

            def release(*, last=False):
                if last:
                    plain = tmp_path / f"plain{next(numbers)}"
                    plain.write_bytes(contents)
                    plain.replace(image)
                with contextlib.suppress(BrokenPipeError):  # the process was killed
                    os.write(descriptor, contents)
                os.close(descriptor)

            return release

        return opened

    return place


@pytest.fixture
def scales():
    """Rewrites the scales of a cache file with `change`, which gets each line's hexadecimal digits."""

    def rewrite(path, change):
        header, *lines = path.read_text().splitlines()
        pairs = [line.rpartition(": ") for line in lines]
        path.write_text("\n".join([header, *(f"{name}: {change(digits)}" for name, _, digits in pairs)]) + "\n")

    return rewrite
