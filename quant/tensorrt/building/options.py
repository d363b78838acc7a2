"""How engines are built: workspace, effort, tactic sources, DLA, and kernel timings kept for the next build."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from calib.files import Transaction
from quant.errors import BuildError
from quant.tensorrt.bindings import TensorRT

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class BuilderOptions:
    """How engines are built.

    Attributes:
        strict_int8: INT8 builds may not use FP16 kernels.
        explicit: INT8 as Q/DQ in the model instead of a calibration cache; TensorRT 11 supports nothing else.
        workspace: Bytes that kernels may use; None for all of the GPU's memory.
        level: Effort, 0 to 5; None for TensorRT's default.
        tactic_sources: Names of TensorRT's tactic sources; None for all that work here.
        dla_core: Build for this DLA core, with the GPU for what it cannot run; None for the GPU only.
        tf32: Whether FP32 kernels may round the factors of products to TF32, as TensorRT does by default.
        timing_cache: File with kernel timings, which is read and written; None for no file. Level 0 times no kernel:
            there TensorRT heeds no such file, and none is read or written.
    """

    strict_int8: bool = False
    explicit: bool = False
    workspace: int | None = None
    level: int | None = None
    tactic_sources: tuple[str, ...] | None = None
    dla_core: int | None = None
    tf32: bool = True
    timing_cache: Path | None = None

    @property
    def times_kernels(self) -> bool:
        """Whether the builder runs kernels to choose the fastest; at level 0 it takes the first one that works."""
        return self.level != 0


def apply_options(tensorrt: TensorRT, builder: Any, config: Any, options: BuilderOptions) -> None:  # noqa: ANN401
    """Apply options to a builder configuration.

    Raises:
        BuildError: This device or release does not have an option.
    """
    trt = tensorrt.module
    if options.workspace is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace)
    if options.level is not None:
        config.builder_optimization_level = options.level
    if not options.tf32:
        config.clear_flag(trt.BuilderFlag.TF32)
    names = options.tactic_sources if options.tactic_sources is not None else default_tactic_sources(tensorrt)
    if names is not None:
        config.set_tactic_sources(_bits(trt.TacticSource, names))
    if options.dla_core is not None:
        cores = int(builder.num_DLA_cores)
        if options.dla_core >= cores:
            raise BuildError(f"DLA core {options.dla_core}: this device has {cores} DLA cores; leave out --dla")
        config.default_device_type = trt.DeviceType.DLA
        config.DLA_core = options.dla_core
        config.set_flag(trt.BuilderFlag.GPU_FALLBACK)
    if options.timing_cache is not None and options.times_kernels:
        data = options.timing_cache.read_bytes() if options.timing_cache.is_file() else b""
        cache = config.create_timing_cache(data)
        if cache is None or not config.set_timing_cache(
            cache, False
        ):  # made by another GPU or release: start with an empty one
            config.set_timing_cache(config.create_timing_cache(b""), False)


def keep_timings(config: Any, options: BuilderOptions) -> None:  # noqa: ANN401 - the bindings have no types
    """Write the timings that a build measured, whole or not at all."""
    if options.timing_cache is None or not options.times_kernels:
        return
    cache = config.get_timing_cache()
    if cache is not None:
        data = bytes(memoryview(cache.serialize()))
        with Transaction(options.timing_cache.parent) as files:
            files.stage(options.timing_cache.name).write_bytes(data)


def without_spoiled_timings(
    build: Callable[[BuilderOptions], _Result], options: BuilderOptions, note: Callable[[str], None] | None
) -> _Result:
    """Build; if TensorRT fails to read the timing cache's contents, delete the cache and build without it.

    Seen on TensorRT 8.6.0: a transformer's build ended in "myelinCache.h::deserializeFromBuffer ... Myelin error from
    unknown graph", with the timing cache of other builds of that model.

    Raises:
        BuildError: The build fails for another reason, or also without the timing cache.
    """
    path = options.timing_cache
    try:
        return build(options)
    except BuildError as error:
        if path is None or not path.is_file() or not re.search("myelinCache|timing cache", str(error), re.IGNORECASE):
            raise
        if note is not None:
            note(f"{path}: TensorRT cannot build with it ({error}); trying without it")
    result = build(replace(options, timing_cache=None))
    path.unlink(missing_ok=True)  # the next build measures again
    return result


def _bits(sources: Any, names: tuple[str, ...]) -> int:  # noqa: ANN401 - the bindings have no types
    unknown = [name for name in names if not hasattr(sources, name)]
    if unknown:
        raise BuildError(f"tactic sources: TensorRT has no '{unknown[0]}'")
    return sum(1 << int(getattr(sources, name)) for name in names)


def default_tactic_sources(tensorrt: TensorRT) -> tuple[str, ...] | None:
    """Only TensorRT's own kernels if cuBLAS and cuDNN do not work; None (TensorRT's default) if they do."""
    if tensorrt.major >= 10 or _external_libraries_work():
        return None
    return ("EDGE_MASK_CONVOLUTIONS", "JIT_CONVOLUTIONS")


def _external_libraries_work() -> bool:
    """Whether cuBLAS and cuDNN respond; some installations have empty stubs that only satisfy the loader."""
    version = ctypes.c_int(-1)
    for names, probe in (
        (("libcublas.so.12", "libcublas.so.11"), lambda library: library.cublasGetProperty(0, ctypes.byref(version))),
        (("libcudnn.so.8",), lambda library: 0 if library.cudnnGetVersion() >= 8000 else 1),
    ):
        for name in names:
            try:
                if probe(ctypes.CDLL(name)) == 0:
                    break
            except (OSError, AttributeError):
                continue
        else:
            return False
    return True
