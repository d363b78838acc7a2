"""What children of tests do; it imports little, since each of them does."""

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
