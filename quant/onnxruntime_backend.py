"""Running models on ONNX Runtime: outputs for evaluation, activations for calibration."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from calib.calibrator import CalibrationBatch, Calibrator
from calib.errors import NonFiniteError
from quant.errors import BuildError, ModelError
from quant.graph import OnnxModel, activation_names

Array = NDArray[Any]
ACTIVATION_BYTES = 32 << 20  # activations held at a time while calibrating: a batch is run in parts that fit


Advance = Callable[[int], None]  # called with the number of images that were just done


def _ignore(images: int) -> None:
    """Progress that nobody watches."""


class OnnxRuntimeSession:
    """A model on ONNX Runtime's CPU provider.

    Attributes:
        outputs: Names of what `run` gives.
        fixed_batch: Batch size that the model demands; None when any will do.
    """

    def __init__(self, proto: onnx.ModelProto, *, name: str = "model", threads: int | None = None) -> None:
        """Load a model.

        Args:
            proto: The model.
            name: What to call it in messages.
            threads: Threads for one run; None leaves it to ONNX Runtime.

        Raises:
            BuildError: ONNX Runtime cannot load it: an unknown operator or opset, a graph that does not type-check.
        """
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # fatal only: what goes wrong is raised, and warnings repeat for every node
        if threads is not None:
            options.intra_op_num_threads = threads
        try:
            self._session = onnxruntime.InferenceSession(
                proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime raises a class of its own for each status code
            raise BuildError(f"{name}: ONNX Runtime cannot load it: {_reason(error)}") from error
        self._name = name
        self.outputs = [output.name for output in self._session.get_outputs()]
        self.types = {output.name: output.type for output in self._session.get_outputs()}
        first = self._session.get_inputs()[0].shape
        self.fixed_batch = first[0] if first and isinstance(first[0], int) else None

    def run(self, inputs: Mapping[str, Array], names: Sequence[str] | None = None) -> list[Array]:
        """Outputs for a batch; a ragged one is filled up where the model's batch is fixed, and cut again.

        Args:
            inputs: Arrays by input name, the first axis is the batch.
            names: Outputs wanted; all by default.

        Raises:
            ModelError: ONNX Runtime refuses the input or fails.
        """
        size = len(next(iter(inputs.values())))
        if self.fixed_batch is not None and size != self.fixed_batch:
            return self._run_in_fixed_batches(inputs, size, names)
        try:
            results: list[Array] = self._session.run(names, dict(inputs))
        except Exception as error:  # onnxruntime raises a class of its own for each status code
            raise ModelError(f"{self._name}: ONNX Runtime cannot run it: {_reason(error)}") from error
        return results

    def _run_in_fixed_batches(self, inputs: Mapping[str, Array], size: int, names: Sequence[str] | None) -> list[Array]:
        fixed = self.fixed_batch or size
        parts = []
        for start in range(0, size, fixed):
            rows = np.arange(start, start + fixed)
            filled = np.where(rows < size, rows, start + (rows - start) % (min(start + fixed, size) - start))
            real = min(fixed, size - start)
            results = self.run({name: array[filled] for name, array in inputs.items()}, names)
            parts.append([r[:real] if r.ndim and len(r) == fixed else r for r in results])
        return [np.concatenate(column) if column[0].ndim else column[0] for column in zip(*parts, strict=True)]


def _reason(error: BaseException) -> str:
    """ONNX Runtime's own words, without its status prefix, on one line."""
    text = " ".join(str(error).split())
    return text.rsplit("[ONNXRuntimeError] : ", 1)[-1].split(" : ", 2)[-1][:300]


class ActivationCollector:
    """Streams batches through the model and hands every float activation to a calibrator.

    Activations live for a part of a batch only, as many images as fit in ACTIVATION_BYTES, so memory does not grow with
    the number of images; the statistics do not depend on how the images are split.
    """

    def __init__(self, model: OnnxModel) -> None:
        """Load the model with all its float activations as outputs.

        Raises:
            ModelError: ONNX Runtime cannot load it.
        """
        proto = onnx.ModelProto()
        proto.CopyFrom(model.proto)
        inputs = {info.name for info in model.inputs}
        existing = {value.name for value in proto.graph.output}
        wanted = activation_names(model.proto)
        for name in wanted:
            if name not in existing and name not in inputs:
                proto.graph.output.append(onnx.ValueInfoProto(name=name))
        try:
            self._session = OnnxRuntimeSession(proto, name=str(model.path))
        except BuildError as error:
            raise ModelError(str(error)) from error
        floats = {name for name, kind in self._session.types.items() if kind in _FLOAT_KINDS}
        self._inputs = [info.name for info in model.inputs if info.dtype.startswith("float")]
        self._outputs = [name for name in wanted if name in floats]
        self._part: int | None = self._session.fixed_batch

    def collect(self, calibrator: Calibrator, advance: Advance = _ignore) -> None:
        """Run all batches of the calibrator's stream.

        Raises:
            NonFiniteError: An activation holds NaN or infinity; names the tensor and the image.
            ModelError: The model cannot be run.
        """
        with ThreadPoolExecutor() as pool:
            for batch in calibrator:
                for part in self._parts(batch):
                    self._collect_part(part, calibrator, pool)
                    advance(len(part[1]))

    def _parts(self, batch: CalibrationBatch) -> Iterator[tuple[dict[str, Array], Sequence[str]]]:
        size = len(batch.names)
        if self._part is None:
            one = self._session.run({name: array[:1] for name, array in batch.inputs.items()}, self._outputs)
            self._part = max(1, ACTIVATION_BYTES // max(1, sum(array.nbytes for array in one)))
        for start in range(0, size, self._part):
            stop = min(start + self._part, size)
            yield {name: array[start:stop] for name, array in batch.inputs.items()}, batch.names[start:stop]

    def _collect_part(
        self, part: tuple[dict[str, Array], Sequence[str]], calibrator: Calibrator, pool: ThreadPoolExecutor
    ) -> None:
        inputs, names = part
        results = self._session.run(inputs, self._outputs) if self._outputs else []
        activations = {name: inputs[name] for name in self._inputs} | dict(zip(self._outputs, results, strict=True))
        calibrator.statistics.reserve(activations)
        try:
            list(pool.map(calibrator.statistics.add, activations, activations.values()))
        except NonFiniteError as error:
            array = activations[error.tensor]
            where = ""
            if array.ndim and len(array) == len(names):
                where = f", image '{names[error.index // (array.size // len(names))]}'"
            value = array.reshape(-1)[error.index]
            raise NonFiniteError(
                f"tensor '{error.tensor}'{where}: expected finite activations, found {value}; "
                "check the image and the preprocessing, and that the model itself gives no NaN or infinity there",
                tensor=error.tensor,
                index=error.index,
            ) from None
        calibrator.statistics.images += len(names)


_FLOAT_KINDS = {"tensor(float)", "tensor(float16)", "tensor(double)"}


def collect_statistics(model: OnnxModel, calibrator: Calibrator, advance: Advance = _ignore) -> None:
    """Run a calibrator's batches through a model, so that it can compute scales; see `ActivationCollector`."""
    ActivationCollector(model).collect(calibrator, advance)
