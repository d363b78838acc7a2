"""Runs models on ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quant.errors import BuildError, ModelError
from quant.onnx_graph.light_model import AnyModel, inference_session, light_model, session_options
from quant.onnx_graph.model import fixed_batch

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
        model: AnyModel,
        *,
        name: str = "model",
        threads: int | None = None,
        spin: bool = True,
        optimize: bool = True,
        exact: bool = False,
        optimized_path: Path | None = None,
        also: Sequence[str] = (),
    ) -> None:
        """Load a model.

        Args:
            model: The model.
            name: What to call it in messages.
            threads: Threads for one run; None for as many as this process has processors.
            spin: Let idle threads wait in a loop during a run: quicker, unless other threads of this process want the
                cores. Between runs they never spin: builds that take turns would halve each other's speed.
            optimize: False to run the graph as it is.
            exact: Compute quantized tensors as the model states it, on floats. Otherwise ONNX Runtime fuses Q/DQ into
                integer kernels, whose 16-bit sums saturate on x86 processors without VNNI; TensorRT has none of that.
            optimized_path: Where to write the optimized graph.
            also: Tensors to give beside the model's outputs.

        Raises:
            BuildError: ONNX Runtime cannot load it: an unknown operator or opset, a graph that does not type-check.
        """
        import onnxruntime

        options = session_options(threads)
        options.add_session_config_entry("session.force_spinning_stop", "1")  # at the end of each run
        if not spin:
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if exact:
            options.add_session_config_entry("session.disable_quant_qdq", "1")
            options.add_session_config_entry("session.x64quantprecision", "1")  # of integer operators in the model
        if not optimize:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        light = light_model(model)
        if optimized_path is not None:
            options.optimized_model_filepath = str(optimized_path)
        try:
            self._session, self._arrays = inference_session(light, options, also)
        except Exception as error:  # onnxruntime raises its own class for each status code
            raise BuildError(f"{name}: ONNX Runtime cannot load it: {_reason(error)}") from error
        self._name = name
        self._model = light  # a made model stays while a session of it is open
        self.outputs = [output.name for output in self._session.get_outputs()]
        self.types = {output.name: output.type for output in self._session.get_outputs()}
        self.fixed_batch = fixed_batch(light.proto)
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
        if self.fixed_batch is not None and (size != self.fixed_batch or size == 1):
            return self._run_in_fixed_batches(inputs, size, names)
        try:
            return self._run(inputs, names)
        except ModelError:
            if size == 1 or self.fixed_batch is not None:
                raise
            return self._run_one_by_one(inputs, size, names)

    def run_whole(self, inputs: Mapping[str, Array], names: Sequence[str]) -> list[Array]:
        """Outputs as the graph gives them, where it takes the batch as it is; else as `run`.

        An output without an axis for the images gets none, as in `run_into`.
        """
        size = len(next(iter(inputs.values())))
        return self._run(inputs, names) if size == self.fixed_batch else self.run(inputs, names)

    def _run(self, inputs: Mapping[str, Array], names: Sequence[str] | None) -> list[Array]:
        try:
            results: list[Array] = self._session.run(names, dict(inputs))
        except Exception as error:  # onnxruntime raises its own class for each status code
            raise ModelError(f"{self._name}: ONNX Runtime cannot run it: {_reason(error)}") from error
        return results

    def _run_one_by_one(self, inputs: Mapping[str, Array], size: int, names: Sequence[str] | None) -> list[Array]:
        """A graph that declares any batch, and holds a shape for one image: it takes one at a time from now on.

        Raises:
            ModelError: It takes no single image either.
        """
        self._run({name: array[:1] if array.ndim else array for name, array in inputs.items()}, names)
        self.fixed_batch = 1
        return self._run_in_fixed_batches(inputs, size, names)

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
            part = {name: array[filled] if array.ndim else array for name, array in inputs.items()}
            parts.append([_first_images(result, fixed, real) for result in self._run(part, names)])
        return [_joined(column, fixed) for column in zip(*parts, strict=True)]


def _batch_axis(array: Array, fixed: int) -> int | None:
    """The axis of a fixed batch: the first one of its size; None where there is none."""
    return next((i for i, size in enumerate(array.shape) if size == fixed), None)


def _first_images(result: Any, fixed: int, real: int) -> Any:  # noqa: ANN401 - sequences and maps too
    axis = _batch_axis(result, fixed) if isinstance(result, np.ndarray) else None
    return result if axis is None else result[(slice(None),) * axis + (slice(real),)]


def _joined(column: Sequence[Any], fixed: int) -> Any:  # noqa: ANN401 - sequences and maps too
    """What parts of a batch gave, as one; an output of one image that has no axis for it gets one."""
    if not isinstance(column[0], np.ndarray):
        return [item for part in column for item in (part if isinstance(part, list) else [part])]
    axis = _batch_axis(column[0], fixed)
    if axis is None:
        same = len({array.shape for array in column}) == 1
        return np.stack(column) if same and fixed == 1 else column[0]
    if len({array.shape[:axis] + array.shape[axis + 1 :] for array in column}) > 1:  # its size depends on the images
        return column[0]
    return np.concatenate(column, axis=axis)


def _reason(error: BaseException) -> str:
    """ONNX Runtime's own words, without its status prefix, on one line."""
    text = " ".join(str(error).split())
    return text.rsplit("[ONNXRuntimeError] : ", 1)[-1].split(" : ", 2)[-1][:300]
