"""What a child process does of a build: it loads TensorRT, then builds one engine into a folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from quant.cuda.device import find_device
from quant.errors import BuildError
from quant.onnx_graph.model import load_model
from quant.settings.output_names import ENGINE_SUFFIX, build_name
from quant.tensorrt.bindings import load_tensorrt
from quant.tensorrt.building.build_job import Note, load_builder
from quant.tensorrt.building.open_axes import with_sizes
from quant.tensorrt.engine_build import EngineMaker, EngineOrder
from quant.tensorrt.engines.engine_file import sidecar_path


@dataclass(frozen=True)
class ChildBuild:
    """One build.

    Attributes:
        model: Path of the FP32 model.
        sha256: Its hash: it may have changed since it was read.
        order: What to make of it.
    """

    model: Path
    sha256: str
    order: EngineOrder

    def __call__(self, folder: Path, note: Note) -> None:
        """Write the engine and its description into the folder.

        Raises:
            BuildError: It cannot be built beside other work.
            OutOfDeviceMemoryError: The GPU has too little memory at present.
        """
        model, order = load_model(self.model), self.order
        if model.sha256 != self.sha256:
            raise BuildError(f"{self.model}: expected the model that this run has read, found another; run again")
        if order.sizes is not None:
            model = with_sizes(model, order.sizes)
        build = EngineMaker(load_tensorrt(), find_device(), note).built(model, order, beside=True)
        path = engine_path(folder, order.precision)
        path.write_bytes(build.engine_bytes)
        sidecar_path(path).write_bytes(build.files[".json"])


def prepare() -> object:
    """Load CUDA, TensorRT and its kernels, which takes seconds the first time in a process; gives what holds them."""
    find_device()
    return load_builder(load_tensorrt())


def engine_path(folder: Path, precision: str) -> Path:
    """Where the engine of a precision lies in a folder."""
    return folder / build_name(precision, ENGINE_SUFFIX)
