"""A built engine as one side of a comparison: its precision, its inputs and outputs, and how to run it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quant.errors import AcceleratorError, BuildError, QuantError
from quant.onnx_graph.model import TensorInfo
from quant.settings.output_names import ENGINE_SUFFIX
from quant.tensorrt.engines.engine_file import EngineIdentity, read_description

if TYPE_CHECKING:
    from quant.tensorrt.engines.engine import Engine
    from quant.tensorrt.engines.loaded_engine import EngineTensor

SUFFIXES = (ENGINE_SUFFIX, ".plan", ".trt")
UNKNOWN = "engine"  # the precision of an engine without a description


@dataclass(frozen=True)
class EngineModel:
    """An engine on the GPU; freed by `close`.

    Attributes:
        path: Where it was read from.
        sha256: Hash of the file.
        precision: Its precision according to the description beside it; `UNKNOWN` if there is none.
        engine: Runs it.
        bytes: Size of the file.
        details: What its description says about its layers; empty if there is none.
    """

    path: Path
    sha256: str
    precision: str
    engine: Engine
    bytes: int
    details: Mapping[str, Any]

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        """Its inputs, in TensorRT's order; the batch is free, because any number of images can be run."""
        return tuple(map(_info, self.engine.inputs))

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        """Its outputs, in TensorRT's order."""
        return tuple(map(_info, self.engine.outputs))

    def close(self) -> None:
        """Free it; a second call does nothing."""
        self.engine.close()


def _info(tensor: EngineTensor) -> TensorInfo:
    return TensorInfo(tensor.name, (None, *tensor.shape[1:]) if tensor.has_batch else tensor.shape, tensor.dtype)


def load_engine(path: Path) -> EngineModel:
    """Read an engine and load it onto the GPU.

    Raises:
        QuantError: It cannot be read, or TensorRT or the GPU is missing; the message says what to install.
        BuildError: It was built by another TensorRT or for another GPU, or TensorRT refuses it.
        StaleEngineError: The description beside it belongs to another file.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise QuantError(f"{path}: cannot be read: {error.strerror or error}") from error
    sha256 = hashlib.sha256(data).hexdigest()
    identity, details = read_description(path, sha256) or (None, {})
    from quant.cuda.device import find_device
    from quant.tensorrt.bindings import is_for_rtx, load_release
    from quant.tensorrt.engines.engine import Engine

    try:
        tensorrt = load_release(identity.tensorrt if identity is not None else "")
        capability = find_device().compute_capability
    except AcceleratorError as error:  # there is no alternative to offer
        if identity is not None and is_for_rtx(identity.tensorrt):
            why = error.reason.split(";")[0]  # what follows says how to install another TensorRT
            raise QuantError(
                f"{path}: expected a GPU of compute capability {identity.compute_capability} to run this engine of "
                f"TensorRT {identity.tensorrt}, found none: {why}; compare the Q/DQ model that it was built from"
            ) from error
        raise QuantError(f"{path}: an engine runs only on TensorRT and a GPU: {error.reason}") from error
    if identity is not None:
        check_origin(path, identity, tensorrt.release, capability)
    precision = identity.precision if identity is not None else UNKNOWN
    return EngineModel(path, sha256, precision, Engine(data, str(path), tensorrt=tensorrt), len(data), details)


def check_origin(path: Path, identity: EngineIdentity, tensorrt: str, compute_capability: str) -> None:
    """Raise when an engine cannot run here.

    Args:
        path: Path of the engine.
        identity: What it was built from.
        tensorrt: The version of TensorRT on this machine.
        compute_capability: The compute capability of this machine's GPU.

    Raises:
        BuildError: It cannot run here; the message names what differs.
    """
    for what, built, here in (
        ("TensorRT", identity.tensorrt, tensorrt),
        ("compute capability", identity.compute_capability, compute_capability),
    ):
        if built != here:
            raise BuildError(f"{path}: was built for {what} {built}, this is {here}; build it again here")
