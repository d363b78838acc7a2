"""Engines for GPUs that are not here, by TensorRT for RTX."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

import calib
from quant.onnx_graph.half_precision import half_model
from quant.onnx_graph.model import OnnxModel
from quant.qdq.half_pairs import half_qdq_model
from quant.settings.batch_range import BatchRange
from quant.tensorrt.bindings import TensorRT
from quant.tensorrt.building.build_job import Note
from quant.tensorrt.building.builder import engine_from_onnx
from quant.tensorrt.building.network import prepared_proto
from quant.tensorrt.building.options import BuilderOptions
from quant.tensorrt.engines.engine_file import EngineIdentity, sidecar_text
from quant.tensorrt.engines.layers import graph_report


@dataclass(frozen=True)
class AheadEngine:
    """An engine that was built without its GPU, and so never run.

    Attributes:
        data: The serialised engine.
        description: What is to be written beside it.
    """

    data: bytes
    description: str


def engine_ahead_of_time(
    tensorrt: TensorRT,
    model: OnnxModel,
    precision: str,
    capability: str,
    batch: BatchRange,
    options: BuilderOptions,
    *,
    scales: str = "",
    float_type: str = "fp32",
    note: Note | None = None,
) -> AheadEngine:
    """Build an engine for a compute capability.

    Args:
        tensorrt: TensorRT for RTX.
        model: FP32, or with Q/DQ for INT8; without open axes besides the batch.
        precision: fp32, fp16 or int8.
        capability: Such as "8.9".
        batch: Batch sizes.
        options: How to build.
        scales: SHA-256 of the INT8 scales, if they come from a cache.
        float_type: For INT8: the type of what has no Q/DQ pair, fp32 or fp16.
        note: Called with lines to display.

    Raises:
        BuildError: TensorRT cannot read or build the model, or not for this capability; the message quotes TensorRT.
    """
    proto = model.proto
    if precision == "fp16":
        proto = half_model(proto)
    elif precision == "int8" and float_type == "fp16":
        proto = half_qdq_model(proto)
    built = engine_from_onnx(
        proto,
        precision,
        batch,
        options,
        name=str(model.path),
        note=note,
        tensorrt=tensorrt,
        capability=capability,
    )
    asked = {key: value for key, value in asdict(options).items() if key != "timing_cache"}
    asked |= {
        "calib": calib.__version__,
        "float_type": float_type,
        "inputs": {info.name: info.shape[1:] for info in model.inputs},
    }
    identity = EngineIdentity(
        tensorrt=tensorrt.release,
        gpu="",
        compute_capability=capability,
        model=model.sha256,
        precision=precision,
        scales=scales,
        batch=str(batch),
        options=json.dumps(asked, sort_keys=True),
    )
    details = {"explicit": precision == "int8", "batch": str(batch), "network_layers": built.network_layers}
    if built.layer_text:
        details["graph"] = graph_report(built.layer_text, prepared_proto(proto, batch, str(model.path))).document()
    return AheadEngine(built.data, sidecar_text(identity, built.data, details, measured=False))
