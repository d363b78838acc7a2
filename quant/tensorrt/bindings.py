"""TensorRT's Python bindings: the import, and the one place that knows how 8.6, 10, 11 and TensorRT for RTX differ.

The tables list everything in the bindings that this project uses. A test resolves each name in API listings of the
three releases and in the bindings of TensorRT for RTX, and finds uses that are not listed. If a release lacks a name,
`TensorRT` works around it. TensorRT for RTX numbers its releases on its own (1.7.1), and has the API of 11.
"""

from __future__ import annotations

import functools
import importlib
import re
from dataclasses import dataclass
from typing import Any

from calib.caches.cache import number_from_version
from quant.cuda.device import load_kernels_when_used
from quant.errors import AcceleratorError, BuildError

EVERYWHERE = """
Builder Builder.create_network Builder.create_builder_config Builder.build_serialized_network
Builder.create_optimization_profile Builder.num_DLA_cores
BuilderFlag.GPU_FALLBACK BuilderFlag.TF32 DeviceType.DLA
DataType.FLOAT DataType.HALF DataType.INT8 DataType.INT32 DataType.BOOL DataType.UINT8
EngineInspector.get_engine_information
IBuilderConfig.add_optimization_profile IBuilderConfig.builder_optimization_level IBuilderConfig.clear_flag
IBuilderConfig.create_timing_cache
IBuilderConfig.default_device_type IBuilderConfig.DLA_core IBuilderConfig.get_timing_cache
IBuilderConfig.profiling_verbosity IBuilderConfig.set_flag IBuilderConfig.set_memory_pool_limit
IBuilderConfig.set_tactic_sources IBuilderConfig.set_timing_cache
ICudaEngine.create_engine_inspector ICudaEngine.create_execution_context ICudaEngine.get_tensor_dtype
ICudaEngine.get_tensor_mode ICudaEngine.get_tensor_name ICudaEngine.get_tensor_profile_shape
ICudaEngine.get_tensor_shape ICudaEngine.num_io_tensors ICudaEngine.num_layers
IExecutionContext.execute_async_v3 IExecutionContext.get_tensor_shape IExecutionContext.profiler
IExecutionContext.set_input_shape
IExecutionContext.set_tensor_address
IHostMemory.nbytes
ILayer.get_input ILayer.get_output ILayer.name ILayer.num_inputs ILayer.num_outputs ILayer.type
ILogger ILogger.ERROR ILogger.INTERNAL_ERROR ILogger.WARNING ILogger.log
INetworkDefinition.get_input INetworkDefinition.get_layer INetworkDefinition.num_inputs INetworkDefinition.num_layers
INetworkDefinition.get_output INetworkDefinition.num_outputs
IOptimizationProfile.set_shape
IProfiler IProfiler.report_layer_time
ITensor.dtype ITensor.name ITensor.shape
ITimingCache.serialize
LayerInformationFormat.JSON LayerType.CONSTANT LayerType.MATRIX_MULTIPLY LayerType.SHUFFLE
MemoryPoolType.WORKSPACE
OnnxParser OnnxParser.get_error OnnxParser.num_errors OnnxParser.parse
ParserError.code ParserError.desc ParserError.node
ProfilingVerbosity.DETAILED
Runtime Runtime.deserialize_cuda_engine
TacticSource.EDGE_MASK_CONVOLUTIONS TacticSource.JIT_CONVOLUTIONS
TensorIOMode.INPUT
init_libnvinfer_plugins
"""

# Removed in 11: calibrators, implicit precisions, implicit and explicit batch.
UNTIL_10 = """
Builder.platform_has_fast_fp16 Builder.platform_has_fast_int8
BuilderFlag.FP16 BuilderFlag.INT8 BuilderFlag.OBEY_PRECISION_CONSTRAINTS
IBuilderConfig.int8_calibrator IBuilderConfig.set_calibration_profile IBuilderConfig.set_quantization_flag
ICudaEngine.device_memory_size
ILayer.precision ILayer.set_output_type
IInt8EntropyCalibrator2 IInt8EntropyCalibrator2.get_batch IInt8EntropyCalibrator2.get_batch_size
IInt8EntropyCalibrator2.read_calibration_cache IInt8EntropyCalibrator2.write_calibration_cache
IInt8LegacyCalibrator IInt8LegacyCalibrator.get_batch IInt8LegacyCalibrator.get_batch_size
IInt8LegacyCalibrator.read_calibration_cache IInt8LegacyCalibrator.write_calibration_cache
IInt8MinMaxCalibrator IInt8MinMaxCalibrator.get_batch IInt8MinMaxCalibrator.get_batch_size
IInt8MinMaxCalibrator.read_calibration_cache IInt8MinMaxCalibrator.write_calibration_cache
NetworkDefinitionCreationFlag.EXPLICIT_BATCH
QuantizationFlag.CALIBRATE_BEFORE_FUSION
"""

# Not yet in 8.6.
FROM_10 = """
DataType.INT64 IBuilderConfig.progress_monitor ICudaEngine.device_memory_size_v2
IProgressMonitor IProgressMonitor.phase_finish IProgressMonitor.phase_start IProgressMonitor.step_complete
NetworkDefinitionCreationFlag.STRONGLY_TYPED
"""

# Only in TensorRT for RTX, which builds for GPUs that need not be there.
FOR_RTX = """
ComputeCapability IBuilderConfig.num_compute_capabilities IBuilderConfig.set_compute_capability
"""

_API_OF_RTX = 11
_FOR_RTX = "for RTX"


class TensorRTError(AcceleratorError):
    """TensorRT cannot be used here; the message says what to install."""


def api_names(major: int, *, for_rtx: bool = False) -> list[str]:
    """Everything in the bindings of a major release that this project uses; `for_rtx` adds what only that one has."""
    tables = [EVERYWHERE, *([UNTIL_10] if major <= 10 else []), *([FROM_10] if major >= 10 else [])]
    return [name for table in [*tables, *([FOR_RTX] if for_rtx else [])] for name in table.split()]


@dataclass(frozen=True)
class TensorRT:
    """The installed release.

    Attributes:
        module: The Python module.
        version: Its version, such as "8.6.0".
        for_rtx: Whether it is TensorRT for RTX.
    """

    module: Any
    version: str
    for_rtx: bool = False

    @property
    def major(self) -> int:
        """The release whose API it has: 8, 10 or 11."""
        return _API_OF_RTX if self.for_rtx else int(self.version.split(".", maxsplit=1)[0])

    @property
    def release(self) -> str:
        """What follows "TensorRT" in messages and in descriptions of engines: "8.6.0", "for RTX 1.7.1.116"."""
        return f"{_FOR_RTX} {self.version}" if self.for_rtx else self.version

    @property
    def capabilities(self) -> tuple[str, ...]:
        """Compute capabilities that it builds for without the GPU, such as "8.9"; none if it needs the GPU."""
        if not self.for_rtx:
            return ()
        numbers = [name[2:] for name in self.module.ComputeCapability.__members__ if re.fullmatch(r"SM\d{2,}", name)]
        return tuple(f"{number[:-1]}.{number[-1]}" for number in sorted(numbers, key=int))

    def check_capability(self, capability: str) -> None:
        """Check that it builds for a compute capability, such as "8.9", without the GPU.

        Raises:
            BuildError: It does not; the message says for which it does.
        """
        if capability not in self.capabilities:
            known = ", ".join(self.capabilities) or "none without the GPU"
            raise BuildError(
                f"compute capability: TensorRT {self.release} builds for {known}, found '{capability:.40}'"
            )

    def set_capability(self, config: Any, capability: str) -> None:  # noqa: ANN401 - the bindings have no types
        """Have a build made for a compute capability.

        Raises:
            BuildError: See `check_capability`.
        """
        self.check_capability(capability)
        config.num_compute_capabilities = 1
        config.set_compute_capability(self.module.ComputeCapability.__members__[f"SM{capability.replace('.', '')}"], 0)

    @property
    def number(self) -> int:
        """The version as caches write it."""
        return number_from_version(self.version)

    @property
    def has_calibrators(self) -> bool:
        """Whether it can calibrate, read calibration caches and choose precisions itself; 11 cannot."""
        return self.major <= 10

    def network_flags(self, *, strongly_typed: bool) -> int:
        """Flags for `create_network`: explicit batch, if the release still needs it, or strong typing."""
        flag = self.module.NetworkDefinitionCreationFlag
        flags = 0
        if self.major < 10:
            flags |= 1 << int(flag.EXPLICIT_BATCH)
        elif strongly_typed:
            flags |= 1 << int(flag.STRONGLY_TYPED)
        return flags

    def lacks(self, builder: Any, precision: str) -> bool:  # noqa: ANN401 - the bindings have no types
        """Whether the builder says that the GPU has no fast kernels of a precision; 11 no longer does."""
        if not self.has_calibrators or precision == "fp32":
            return False
        fast = builder.platform_has_fast_int8 if precision == "int8" else builder.platform_has_fast_fp16
        return not fast

    def device_memory(self, engine: Any) -> int:  # noqa: ANN401 - the bindings have no types
        """Bytes of device memory that an execution of the engine needs besides weights, inputs and outputs."""
        return int(engine.device_memory_size_v2 if self.major >= 10 else engine.device_memory_size)

    def numpy_type(self, dtype: Any) -> str:  # noqa: ANN401 - the bindings have no types
        """NumPy's name of a data type; TensorRT's own `nptype` fails in 8.6 with NumPy 1.24 and later.

        Raises:
            TensorRTError: NumPy has no such type.
        """
        kinds = self.module.DataType
        names = {
            kinds.FLOAT: "float32",
            kinds.HALF: "float16",
            kinds.INT8: "int8",
            kinds.INT32: "int32",
            kinds.BOOL: "bool",
            kinds.UINT8: "uint8",
        }
        if self.major >= 10:
            names[kinds.INT64] = "int64"
        if dtype not in names:
            raise TensorRTError(f"expected inputs and outputs of a type that NumPy has, found {dtype}")
        return names[dtype]


@functools.cache
def load_tensorrt() -> TensorRT:
    """Import TensorRT.

    Raises:
        TensorRTError: It is not installed, its libraries are missing, or the release is not supported.
    """
    missing = TensorRTError(
        "TensorRT is not installed; pip install 'calib-int8[tensorrt]'", instead="use --backend onnxruntime"
    )
    load_kernels_when_used()
    module, version = _imported("tensorrt", "tensorrt", missing)
    found = TensorRT(module, version)
    if number_from_version(version) < 8600 or found.major == 9:
        raise TensorRTError(f"TensorRT: expected 8.6, 10 or 11, found {version}; install one of these")
    return found


@functools.cache
def load_tensorrt_for_rtx() -> TensorRT:
    """Import TensorRT for RTX, which builds engines for GPUs that are not here.

    Raises:
        TensorRTError: It is not installed, or its libraries are missing.
    """
    missing = TensorRTError("TensorRT for RTX is not installed; pip install 'calib-int8[rtx]'")
    module, version = _imported("tensorrt_rtx_bindings", "tensorrt-rtx-cu12-bindings", missing)
    return TensorRT(module, version, for_rtx=True)


def load_release(release: str) -> TensorRT:
    """The bindings that an engine's description names; TensorRT's own if it names none.

    Raises:
        TensorRTError: They cannot be loaded.
    """
    return load_tensorrt_for_rtx() if is_for_rtx(release) else load_tensorrt()


def is_for_rtx(release: str) -> bool:
    """Does an engine's description name TensorRT for RTX?"""
    return release.startswith(_FOR_RTX)


def _imported(name: str, package: str, missing: TensorRTError) -> tuple[Any, str]:
    """The bindings of this name, which a package of another may hold, and their version.

    Raises:
        TensorRTError: `missing` if they are not installed; or they cannot be imported, or the package has none.
    """
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise _library_error(package, error) from error
        raise missing from error
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        raise _library_error(package, error) from error
    version = str(getattr(module, "__version__", ""))
    if not hasattr(module, "Builder") or not version:
        raise TensorRTError(
            "TensorRT: expected its Python bindings, found a package without them; "
            f"pip install --force-reinstall {package}"
        )
    return module, version


def _library_error(package: str, error: Exception) -> TensorRTError:
    reason = " ".join(str(error).split())
    return TensorRTError(
        f"TensorRT's libraries cannot be loaded: {reason}; reinstall {package} with the CUDA libraries that it names, "
        "and put their folder on LD_LIBRARY_PATH"
    )
