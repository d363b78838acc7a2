import dataclasses
import os
import signal
import tempfile
from pathlib import Path

import numpy as np
import pytest

from calib.calibrator import MinMaxCalibrator
from datasets import BatchStream, Preprocessing, open_source
from quant import collect_statistics, load_model
from quant.errors import QuantError
from quant.tensorrt.building.options import BuilderOptions

FAST = BuilderOptions(level=0)


def _own_gpu() -> str:
    """The GPU of this process: of several in CUDA_VISIBLE_DEVICES, pytest's workers take turns."""
    gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
    return gpus[int(worker) % len(gpus)]


if "CUDA_VISIBLE_DEVICES" in os.environ:
    os.environ["CUDA_VISIBLE_DEVICES"] = _own_gpu()  # before CUDA starts; children see the same one


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item, nextitem):
    """Let tests that ask for `alone` or `memory_returns` have their GPU alone, set-up and end included.

    All others share the lock. Who waits to be alone holds the gate, so that no other test slips in before.
    """
    import fcntl

    alone = bool({"memory_returns", "alone"} & set(getattr(item, "fixturenames", ())))
    name = str(Path(tempfile.gettempdir()) / f"calib-gpu-tests{os.environ.get('CUDA_VISIBLE_DEVICES', '')}")
    with Path(f"{name}.gate").open("w") as gate, Path(f"{name}.lock").open("w") as lock:
        fcntl.flock(gate, fcntl.LOCK_EX)
        fcntl.flock(lock, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(gate, fcntl.LOCK_UN)
        return (yield)


@pytest.fixture(scope="session", autouse=True)
def gpu():
    """The GPU, warmed up by one build; every test here skips without one."""
    from quant.cuda.device import find_device
    from quant.tensorrt.bindings import load_tensorrt

    try:
        load_tensorrt()
        return find_device()
    except QuantError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session", autouse=True)
def ctrl_c():
    """As from a terminal: a job in the background inherits an ignored Ctrl-C, and so would its children."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def fast():
    """Builds that take the least effort."""
    return FAST


@pytest.fixture(scope="session")
def digits(demo_master):
    """The embedded sample's model."""
    return load_model(demo_master / "model.onnx")


@pytest.fixture(scope="session")
def digit_stream(demo_master, digits):
    """Batches of the embedded sample's images."""
    preprocessing = Preprocessing.from_toml(demo_master / "preprocess.toml")
    preprocessing = preprocessing.bound_to(digits.inputs[0].shape, digits.inputs[0].dtype)
    source = open_source(demo_master / "imgs")

    def stream(images=256, batch_size=32):
        return BatchStream(source, np.arange(images), preprocessing=preprocessing, batch_size=batch_size)

    return stream


@pytest.fixture(scope="session")
def digit_images(digit_stream):
    """200 of them as one input."""
    return next(iter(digit_stream(200, 200))).inputs


@pytest.fixture(scope="session")
def digit_statistics(digits, digit_stream):
    """A calibrator that saw 256 images."""
    calibrator = MinMaxCalibrator(digit_stream())
    collect_statistics(digits, calibrator)
    return calibrator


@pytest.fixture(scope="session")
def digit_cache(digit_statistics):
    """A cache of the toolkit's own scales."""
    return digit_statistics.compute_cache()


@pytest.fixture
def backend(fast):
    """Makes back ends and frees them; `notes` gathers what they say."""
    from quant.tensorrt.backend import TensorRTBackend

    made, notes = [], []

    def make(batch=32, **options):
        engines = options.pop("engines", None)
        made.append(TensorRTBackend(batch, dataclasses.replace(fast, **options), engines=engines, note=notes.append))
        return made[-1]

    make.notes = notes
    yield make
    for each in made:
        each.close()


@pytest.fixture
def alone():
    """Lets a test run while no other uses the GPU: it looks at its memory, or at kernels chosen by their timing."""


@pytest.fixture(scope="session")
def warm(digits, fast):
    """CUDA and TensorRT load what stays for the life of a process: do that before memory is looked at."""
    from quant.settings.batch_range import BatchRange
    from quant.tensorrt.building.builder import engine_from_onnx
    from quant.tensorrt.engines.engine import Engine

    for precision in ("fp32", "fp16"):
        Engine(engine_from_onnx(digits.proto, precision, BatchRange(8, 8, 8), fast).data).close()


@pytest.fixture
def memory_returns(warm):
    """At the end of the test the GPU's memory is where it was, but for 8 MiB that kernels may load on first use."""
    from quant.cuda.device import memory_info, synchronize

    before = memory_info()[0]
    yield
    synchronize()
    assert before - memory_info()[0] <= 8 << 20
