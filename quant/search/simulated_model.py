"""The INT8 model with its scales as inputs, so that a change of scales needs one run and no build."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from calib.caches.cache import scale_from_amax
from quant.evaluation.accuracy import rows_of_outputs
from quant.onnx_graph.light_model import LightModel, with_initializers
from quant.onnx_graph.model import OnnxModel
from quant.onnxruntime.resident import Resident, bytes_of_session
from quant.onnxruntime.session import OnnxRuntimeSession
from quant.qdq.placement import Placement, quantizable_inputs
from quant.qdq.preparation import prepared_for_quantization
from quant.qdq.writer import light_qdq_model, quantizable_tensors

Inputs = Mapping[str, NDArray[Any]]


class SimulatedModel:
    """The FP32 model, and the INT8 model with its scales as inputs."""

    def __init__(self, model: OnnxModel, float_nodes: frozenset[str] = frozenset()) -> None:
        placement = Placement(float_nodes=float_nodes)
        self.tensors = quantizable_tensors(model.light, placement)
        simulated, self._scales = _with_scales_as_inputs(model.light, placement)
        self._session = Resident(
            lambda: OnnxRuntimeSession(simulated, name=f"{model.path} (int8)", exact=True),
            bytes_of_session(simulated.values),
        )
        self._reference = Resident(
            lambda: OnnxRuntimeSession(model.light, name=str(model.path)), bytes_of_session(model.light.values)
        )

    def expected(self, batch: Inputs) -> NDArray[np.float64]:
        """FP32's outputs, one row per image."""
        return rows_of_outputs(self._reference.run(batch), _size(batch))

    def found(self, batch: Inputs, amax: Mapping[str, float]) -> NDArray[np.float64]:
        """INT8's outputs, a row an image."""
        return rows_of_outputs(self.outputs(batch, amax), _size(batch))

    def reference(self, batch: Inputs) -> list[NDArray[Any]]:
        """FP32's outputs as they are."""
        return self._reference.run(batch)

    def outputs(self, batch: Inputs, amax: Mapping[str, float]) -> list[NDArray[Any]]:
        """INT8's outputs as they are, with the scales of these amax."""
        scales = {name: np.array(scale_from_amax(amax[tensor])) for name, tensor in self._scales.items()}
        return self._session.run({**batch, **scales})


class TrialImages:
    """Images to run scales on, and the FP32 outputs that INT8 is compared with."""

    def __init__(self, model: SimulatedModel, batches: Sequence[Inputs]) -> None:
        self._model = model
        self._batches = batches
        self._expected = [model.expected(batch) for batch in batches]
        self._signal = sum(float(np.square(array).sum()) for array in self._expected)

    def noise(self, amax: Mapping[str, float]) -> NDArray[np.float64]:
        """Squared error of each image's outputs."""
        pairs = zip(self._batches, self._expected, strict=True)
        parts = [np.square(self._model.found(batch, amax) - expected).sum(axis=1) for batch, expected in pairs]
        return np.concatenate(parts) if parts else np.zeros(0)

    def sqnr_db(self, noise: NDArray[np.float64]) -> float:
        """SQNR of the outputs, dB."""
        total = float(noise.sum())
        return float(10 * np.log10(self._signal / total)) if total and self._signal else float("inf")


def _size(batch: Inputs) -> int:
    """Images in a batch."""
    return len(next(iter(batch.values())))


def _with_scales_as_inputs(model: LightModel, placement: Placement) -> tuple[LightModel, dict[str, str]]:
    """The INT8 model with a scalar input for each scale, and the tensors whose scales these inputs take, by input name.

    A pair on data that was only moved has its own input, which takes the scale of the tensor that the data came from.
    """
    edges = quantizable_inputs(prepared_for_quantization(model), placement)
    scale_of = {edge.tensor: edge.scale for edge in edges}
    made = light_qdq_model(model, dict.fromkeys(scale_of.values(), 1.0), placement)
    names = {
        node.input[1]: scale_of[node.input[0]]
        for node in made.proto.graph.node
        if node.op_type == "QuantizeLinear" and node.input[0] in scale_of
    }
    kept = [tensor for tensor in made.proto.graph.initializer if tensor.name not in names]
    simulated = with_initializers(made.proto, kept)
    simulated.graph.input.extend(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, []) for name in names)
    return LightModel(simulated, made.weights), names
