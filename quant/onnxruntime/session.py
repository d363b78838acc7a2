"""Runs models on ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from quant.errors import BuildError, ModelError
from quant.onnx_graph.model import fixed_batch
from quant.onnx_graph.weights_aside import with_weights_aside

Array = NDArray[Any]


class OnnxRuntimeSession:
    """A model on ONNX Runtime's CPU provider.

    Attributes:
        outputs: Names of the outputs that `run` gives.
        types: ONNX Runtime's type of each output, such as `tensor(float)`.
        fixed_shapes: False once an output's shape is seen to depend on more than the batch size.
        fixed_batch: Batch size that the model requires; None if any will do.
    """

    def __init__(
        self,
        proto: onnx.ModelProto,
        *,
        name: str = "model",
        threads: int | None = None,
        spin: bool = True,
        optimize: bool = True,
        optimized_path: Path | None = None,
        also: Sequence[str] = (),
    ) -> None:
        """Load a model.

        Args:
            proto: The model.
            name: What to call it in messages.
            threads: Threads for one run; None leaves it to ONNX Runtime.
            spin: Let idle threads wait in a loop during a run: quicker, unless other threads of this process want the
                cores. Between runs they never spin: builds that take turns would halve each other's speed.
            optimize: False to run the graph as it is.
            optimized_path: Where to write the optimised graph.
            also: Tensors to give besides the model's outputs.

        Raises:
            BuildError: ONNX Runtime cannot load it: an unknown operator or opset, a graph that does not type-check.
        """
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # fatal only: errors are raised anyway, and warnings repeat for every node
        if threads is not None:
            options.intra_op_num_threads = threads
        options.add_session_config_entry("session.force_spinning_stop", "1")  # at the end of each run
        if not spin:
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if not optimize:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        light, self._weights = with_weights_aside(proto)  # kept, because the session reads the arrays in place
        existing = {value.name for value in light.graph.output}
        light.graph.output.extend(onnx.ValueInfoProto(name=tensor) for tensor in also if tensor not in existing)
        if optimized_path is not None:
            options.optimized_model_filepath = str(optimized_path)
        try:
            if self._weights:
                values = [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in self._weights.values()]
                options.add_external_initializers(list(self._weights), values)
            self._session = onnxruntime.InferenceSession(
                light.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime raises its own class for each status code
            raise BuildError(f"{name}: ONNX Runtime cannot load it: {_reason(error)}") from error
        self._name = name
        self.outputs = [output.name for output in self._session.get_outputs()]
        self.types = {output.name: output.type for output in self._session.get_outputs()}
        self.fixed_batch = fixed_batch(proto)
        self._bindings: dict[int, tuple[dict[str, Array], dict[str, Array], Any]] = {}
        self.fixed_shapes = True  # until an output's shape is seen to depend on more than the batch size

    def run(self, inputs: Mapping[str, Array], names: Sequence[str] | None = None) -> list[Array]:
        """Outputs for a batch; if the model's batch is fixed, a ragged batch is filled up and its outputs are cut.

        Args:
            inputs: Arrays by input name; the first axis is the batch. Scalars, never first, apply to all images.
            names: Outputs wanted; all by default.

        Raises:
            ModelError: ONNX Runtime refuses the input or fails.
        """
        size = len(next(iter(inputs.values())))
        if self.fixed_batch is not None and size != self.fixed_batch:
            return self._run_in_fixed_batches(inputs, size, names)
        try:
            results: list[Array] = self._session.run(names, dict(inputs))
        except Exception as error:  # onnxruntime raises its own class for each status code
            raise ModelError(f"{self._name}: ONNX Runtime cannot run it: {_reason(error)}") from error
        return results

    def run_into(self, inputs: Mapping[str, Array], outputs: dict[str, Array]) -> None:
        """Write outputs into arrays of an earlier run of the same batch size, so that no memory is allocated.

        If an output's shape differs from that run's, the arrays are replaced instead. Give the same dictionary each
        time, and replace no array in it.

        Raises:
            ModelError: ONNX Runtime refuses the input or fails.
        """
        if self.fixed_shapes:
            binding = self._binding(outputs)
            for name, array in inputs.items():
                binding.bind_cpu_input(name, np.ascontiguousarray(array))  # the binding keeps it alive if it is a copy
            try:
                self._session.run_with_iobinding(binding)
            except Exception:  # noqa: BLE001 - another shape is one cause; a plain run reports others
                self.fixed_shapes = False
                self._bindings.clear()  # and what they hold
            else:
                return
        outputs.update(zip(outputs, self.run(inputs, list(outputs)), strict=True))

    def _binding(self, outputs: dict[str, Array]) -> Any:  # noqa: ANN401 - onnxruntime has no types
        """A binding of arrays, kept with them: binding hundreds takes as long as running a small network."""
        known = self._bindings.get(id(outputs))
        if known is not None:
            return known[-1]
        binding = self._session.io_binding()
        for name, array in outputs.items():
            binding.bind_output(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        self._bindings[id(outputs)] = (outputs, dict(outputs), binding)
        return binding

    def _run_in_fixed_batches(self, inputs: Mapping[str, Array], size: int, names: Sequence[str] | None) -> list[Array]:
        fixed = self.fixed_batch or size
        parts = []
        for start in range(0, size, fixed):
            rows = np.arange(start, start + fixed)
            filled = np.where(rows < size, rows, start + (rows - start) % (min(start + fixed, size) - start))
            real = min(fixed, size - start)
            results = self.run({name: array[filled] if array.ndim else array for name, array in inputs.items()}, names)
            parts.append([r[:real] if r.ndim and len(r) == fixed else r for r in results])
        return [np.concatenate(column) if column[0].ndim else column[0] for column in zip(*parts, strict=True)]


def _reason(error: BaseException) -> str:
    """ONNX Runtime's own words, without its status prefix, on one line."""
    text = " ".join(str(error).split())
    return text.rsplit("[ONNXRuntimeError] : ", 1)[-1].split(" : ", 2)[-1][:300]
