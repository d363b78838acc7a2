"""The job of `calib build`: engine files from a model and its scales, built and not measured."""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from calib.files import Transaction, exclusive
from quant.errors import AcceleratorError, SettingsError
from quant.evaluation.deployment import missing_instructions
from quant.jobs.cache_convert import model_with_scales
from quant.jobs.engines.build_inputs import BuildInputs, build_inputs
from quant.onnx_graph.model import OnnxModel
from quant.onnx_graph.model_file import stage_model
from quant.progress import Console, RecordingConsole
from quant.qdq.number_form import for_onnxruntime
from quant.settings.batch_range import BatchRange, batch_range_from_text
from quant.settings.build_settings import FOR_RTX, ONNXRUNTIME, BuildSettings
from quant.settings.output_names import TIMING_CACHE, description_name
from quant.tensorrt.building.options import BuilderOptions
from quant.tensorrt.engines.engine_file import scales_sha256

SCHEMA = 1


@dataclass(frozen=True)
class BuiltFile:
    """An engine that was built and never run.

    Attributes:
        path: Where it was written; its description is beside it.
        precision: fp32, fp16 or int8.
        compute_capability: Of the GPUs that it runs on, such as "8.9".
        tensorrt: What built it, such as "for RTX 1.7.1.116"; nothing else runs it.
        bytes: Its size.
        sha256: Its hash.
        measured: Whether it was run: never.
        weight_bits: Of a model for ONNX Runtime, which has no capability and no TensorRT: bits of its weights, 8 or 7.
    """

    path: Path
    precision: str
    compute_capability: str
    tensorrt: str
    bytes: int
    sha256: str
    measured: bool = False
    weight_bits: int | None = None

    def __str__(self) -> str:
        if self.weight_bits is not None:
            return (
                f"{self.path}: {self.precision.upper()} for ONNX Runtime, weights of {self.weight_bits} bits, "
                f"{self.bytes / 1e6:.1f} MB; built, not measured"
            )
        return (
            f"{self.path}: {self.precision.upper()} for compute capability {self.compute_capability}, "
            f"{self.bytes / 1e6:.1f} MB, by TensorRT {self.tensorrt}; built, not measured"
        )


@dataclass(frozen=True)
class BuildResult:
    """What `build_engines` did.

    Attributes:
        files: The engines, in the order that was asked for.
        warnings: What a user should read.
    """

    files: tuple[BuiltFile, ...]
    warnings: tuple[str, ...]

    def document(self) -> dict[str, Any]:
        """As JSON values."""
        engines = [
            {key: value for key, value in {**asdict(file), "path": str(file.path)}.items() if value is not None}
            for file in self.files
        ]
        return {"schema": SCHEMA, "engines": engines, "warnings": list(self.warnings)}


@dataclass(frozen=True)
class _Made:
    """An engine that is to be written."""

    name: str
    capability: str
    release: str
    data: bytes
    description: bytes


def build_engines(settings: BuildSettings, console: Console | None = None) -> BuildResult:
    """Build engines and write them into `settings.out`, all of them or none.

    Args:
        settings: What to build from, for what, and how.
        console: Where progress goes; nowhere by default.

    Raises:
        SettingsError: What is asked for makes no sense.
        AcceleratorError: TensorRT or the GPU is missing; the message says what to install.
        CacheError: There are no scales, or they do not fit the model.
        ModelError: The model cannot be read.
        BuildError: TensorRT cannot read or build the model; the message names the node and quotes TensorRT.
        OutputError: The files cannot be written.
    """
    listener = RecordingConsole(console)
    if settings.target == ONNXRUNTIME:
        return _for_onnxruntime(settings, listener)
    builder = _AheadOfTime(settings) if settings.target == FOR_RTX else _OnThisGpu(settings, listener)
    with contextlib.closing(builder), exclusive(settings.out):
        given = build_inputs(settings, listener)
        made = builder.engines(given, listener)
        with Transaction(settings.out) as files:
            for each in made:
                files.stage(each.name).write_bytes(each.data)
                files.stage(description_name(each.name)).write_bytes(each.description)
    built = [
        BuiltFile(
            settings.out / each.name,
            given.precision,
            each.capability,
            each.release,
            len(each.data),
            hashlib.sha256(each.data).hexdigest(),
        )
        for each in made
    ]
    return BuildResult(tuple(built), tuple(listener.warnings))


def _for_onnxruntime(settings: BuildSettings, listener: RecordingConsole) -> BuildResult:
    """Write the Q/DQ model whose numbers ONNX Runtime's own kernels take."""
    with exclusive(settings.out):
        given = build_inputs(settings, listener)
        if given.cache is None or given.cache_path is None:
            raise SettingsError(
                f"{given.model.path}: expected the FP32 model for --target {ONNXRUNTIME}, found one with Q/DQ, whose "
                "numbers are chosen already; give the FP32 model, and this one as --cache"
            )
        missing = missing_instructions()
        reduced = settings.reduce_range == "yes" or (settings.reduce_range == "auto" and bool(missing))
        if reduced and settings.reduce_range == "auto":
            listener.note(
                f"this processor has no {missing}, so that weights of 8 bits would saturate: they have 7 "
                "(--reduce-range no for processors that have it)"
            )
        form = for_onnxruntime(reduce_range=reduced)
        model = model_with_scales(given.model, given.cache, given.cache_path, given.placement, form)
        name = settings.engine_name(given.precision, "")
        with Transaction(settings.out) as files:
            stage_model(files, name, model)
    path = settings.out / name
    built = BuiltFile(
        path,
        given.precision,
        "",
        "",
        path.stat().st_size,
        hashlib.sha256(path.read_bytes()).hexdigest(),
        weight_bits=7 if reduced else 8,
    )
    return BuildResult((built,), tuple(listener.warnings))


def _options(settings: BuildSettings) -> BuilderOptions:
    return BuilderOptions(
        workspace=settings.workspace << 20 if settings.workspace else None, level=settings.builder_level
    )


def _batch(settings: BuildSettings) -> BatchRange:
    size = settings.batch_size
    return batch_range_from_text(settings.dynamic) if settings.dynamic else BatchRange(size, size, size)


class _AheadOfTime:
    """Builds for GPUs that need not be here."""

    def __init__(self, settings: BuildSettings) -> None:
        from quant.tensorrt.bindings import load_tensorrt_for_rtx

        self._settings = settings
        self._tensorrt = load_tensorrt_for_rtx()
        for capability in settings.capabilities:
            self._tensorrt.check_capability(capability)

    def engines(self, given: BuildInputs, console: Console) -> list[_Made]:
        """An engine for each compute capability."""
        from quant.tensorrt.ahead_of_time import engine_ahead_of_time
        from quant.tensorrt.building.network import fitted_batch

        batch = fitted_batch(given.model, _batch(self._settings), console.note)
        model = _quantized(given)
        made = []
        for capability in self._settings.capabilities:
            console.note(f"building {given.precision.upper()} for compute capability {capability}")
            engine = engine_ahead_of_time(
                self._tensorrt,
                model,
                given.precision,
                capability,
                batch,
                _options(self._settings),
                scales=scales_sha256(given.cache.scales) if given.cache is not None else "",
                float_type=self._settings.float_type,
                note=console.note,
            )
            name = self._settings.engine_name(given.precision, capability)
            made.append(_Made(name, capability, self._tensorrt.release, engine.data, engine.description.encode()))
        return made

    def close(self) -> None:
        """Nothing is held."""


def _quantized(given: BuildInputs) -> OnnxModel:
    """The model with Q/DQ for INT8; it keeps the name and hash of the file that it was made from."""
    if given.cache is None or given.cache_path is None:
        return given.model
    return replace(given.model, light=model_with_scales(given.model, given.cache, given.cache_path, given.placement))


class _OnThisGpu:
    """Builds for the GPU that is here."""

    def __init__(self, settings: BuildSettings, console: Console) -> None:
        from quant.tensorrt.backend import TensorRTBackend

        self._settings = settings
        sources = settings.tactic_sources.split(",") if settings.tactic_sources else None
        options = replace(
            _options(settings),
            strict_int8=settings.strict_int8,
            explicit=settings.explicit,
            tactic_sources=None if sources is None else tuple(name.strip() for name in sources),
            dla_core=settings.dla,
            timing_cache=settings.out / TIMING_CACHE,
        )
        try:
            self._backend = TensorRTBackend(_batch(settings), options, measured=False, note=console.note)
        except AcceleratorError as error:
            raise AcceleratorError(
                error.reason, instead=f"build with --target {FOR_RTX}, which needs no GPU"
            ) from error
        console.note(f"back end: TensorRT {self._backend.version} on {self._backend.device}")

    def engines(self, given: BuildInputs, console: Console) -> list[_Made]:
        """The one engine; what the back end says, it says to its own console."""
        backend = self._backend
        if given.precision == "int8" and given.cache is None:
            build = backend.load(given.model, given.precision)
        else:
            build = backend.build(given.model, given.precision, given.cache, given.placement.float_nodes)
        name = self._settings.engine_name(given.precision, backend.compute_capability)
        return [_Made(name, backend.compute_capability, backend.version, build.engine_bytes, build.files[".json"])]

    def close(self) -> None:
        """Free the engines."""
        self._backend.close()
