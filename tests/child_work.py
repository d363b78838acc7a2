"""What children of tests do; it imports little, since each of them does."""

import atexit
import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

from quant.errors import BuildError

LONG = 120  # seconds after which a test has hung


def nothing():
    """What these children prepare."""


def appears(path):
    """Wait for a file."""
    end = time.monotonic() + LONG
    while not path.exists():
        assert time.monotonic() < end, path
        time.sleep(0.02)


def leave(path, text):
    """Leave a file, which is there only once it is whole."""
    unfinished = path.with_name(f"{path.name}.part")
    unfinished.write_text(text)
    unfinished.rename(path)


def contents(build):
    """The model of a build; nothing for FP32, which is the user's file."""
    from quant.onnx_graph.light_model import whole_model

    return whole_model(build.payload.model()).SerializeToString(deterministic=True) if build.payload else b""


@dataclass(frozen=True)
class Behaviour:
    """What children do before they build, by precision.

    Attributes:
        begun: Where each leaves a file called after its precision, which holds its process's number.
        waits: It waits for this file.
        fails: It fails with this text; "kill" ends its process.
    """

    begun: Path | None = None
    waits: dict = field(default_factory=dict)
    fails: dict = field(default_factory=dict)


@dataclass(frozen=True)
class ChildWork:
    """A build by ONNX Runtime."""

    model: Path
    precision: str
    cache: object
    float_nodes: frozenset
    behaviour: Behaviour

    def __call__(self, folder, note):
        behaviour, precision = self.behaviour, self.precision
        if behaviour.begun is not None:
            leave(behaviour.begun / precision, str(os.getpid()))
        if precision in behaviour.waits:
            appears(behaviour.waits[precision])
        if behaviour.fails.get(precision) == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if precision in behaviour.fails:
            raise BuildError(behaviour.fails[precision])
        from quant.onnx_graph.model import load_model
        from quant.onnxruntime.backend import OnnxRuntimeBackend

        build = OnnxRuntimeBackend().build(load_model(self.model), precision, self.cache, self.float_nodes)
        (folder / "built").write_bytes(contents(build))
        note(f"{precision}: built by a child")


@dataclass(frozen=True)
class Say:
    """Says two lines and leaves a file."""

    text: str

    def __call__(self, folder, note):
        note(self.text)
        note("done")
        (folder / "file").write_text(self.text)


@dataclass(frozen=True)
class Wait:
    """Waits for a file."""

    file: Path

    def __call__(self, folder, note):
        appears(self.file)


@dataclass(frozen=True)
class Raise:
    """Raises an error."""

    error: Exception

    def __call__(self, folder, note):
        note("about to fail")
        raise self.error


def crash(folder, note):
    """Ends as a C++ library does that gives up, after its last words."""
    os.write(2, b"first line\n  terminate called:   \xff no kernel\n\n")
    os.abort()


@dataclass(frozen=True)
class Unwritable:
    """Cannot write how it ended; what cleans up at the end of a process would never end."""

    error: str = ""

    def __call__(self, folder, note):
        atexit.register(time.sleep, 3600)
        (folder / "ended.json.part").mkdir()
        if self.error:
            raise BuildError(self.error)


def leave_at_once(folder, note):
    """Ends the process."""
    os._exit(3)


def hold_python(folder, note):
    """Never lets another thread of Python run, nor does anything."""
    import ctypes

    leave(folder / "holding", "")
    ctypes.PyDLL(None).sleep(3600)


@dataclass(frozen=True)
class Refuse:
    """A preparation that fails."""

    error: Exception

    def __call__(self):
        raise self.error


@dataclass(frozen=True)
class RtxWork:
    """A build by TensorRT for RTX, which needs no GPU for it."""

    model: Path
    precision: str

    def __call__(self, folder, note):
        from quant.tensorrt.bindings import load_tensorrt_for_rtx
        from quant.tensorrt.engines.engine_file import sidecar_path

        built = rtx_engine(load_tensorrt_for_rtx(), self.model, self.precision)
        (folder / "model.engine").write_bytes(built.data)
        sidecar_path(folder / "model.engine").write_text(built.description)


def rtx_engine(rtx, path, precision):
    """An engine for a GPU that need not be there, and its description."""
    from quant.onnx_graph.model import load_model
    from quant.settings.batch_range import BatchRange
    from quant.tensorrt.ahead_of_time import engine_ahead_of_time
    from quant.tensorrt.building.options import BuilderOptions

    options = BuilderOptions(level=0)
    return engine_ahead_of_time(rtx, load_model(path), precision, "8.9", BatchRange(2, 2, 2), options)
