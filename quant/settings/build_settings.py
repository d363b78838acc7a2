"""The settings of `calib build`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from calib.regular_files import resolved
from quant.errors import SettingsError
from quant.settings.batch_range import batch_range_from_text
from quant.settings.output_names import (
    ENGINE_SUFFIX,
    ahead_name,
    build_name,
    data_name,
    description_name,
    onnxruntime_name,
)
from quant.settings.run_settings import RunSettings

TENSORRT, FOR_RTX, ONNXRUNTIME = "tensorrt", "tensorrt-rtx", "onnxruntime"
TARGETS = (TENSORRT, FOR_RTX, ONNXRUNTIME)
REDUCE_RANGE = ("auto", "yes", "no")
FLOAT_TYPES = ("fp32", "fp16")


@dataclass(frozen=True)
class BuildSettings(RunSettings):
    """Settings of `calib build`: those of a run, of which model, scales, sizes and builder options count.

    Attributes:
        float_type: For tensorrt-rtx and INT8: the type of what has no Q/DQ pair, fp32 or fp16.
        target: tensorrt for the GPU that is here, tensorrt-rtx for GPUs that need not be here, onnxruntime for the
            processors that ONNX Runtime's own kernels run on.
        capabilities: For tensorrt-rtx: compute capabilities to build for, such as "8.9".
        reduce_range: For onnxruntime: weights of 7 bits, yes or no; auto where this processor's kernels saturate.
    """

    float_type: str = "fp32"
    target: str = TENSORRT
    capabilities: tuple[str, ...] = ()
    reduce_range: str = "auto"

    def __post_init__(self) -> None:
        if self.target not in TARGETS:
            raise SettingsError(f"target: expected one of {', '.join(TARGETS)}, found '{self.target}'")
        if self.target == TENSORRT and self.capabilities:
            raise SettingsError(
                "compute_capability: expected none, because TensorRT builds for the GPU that is here; use --target "
                "tensorrt-rtx"
            )
        if self.target == ONNXRUNTIME and self.capabilities:
            raise SettingsError(f"compute_capability: expected none for {ONNXRUNTIME}; use --target {FOR_RTX}")
        if self.target == ONNXRUNTIME and self.precision != "int8":
            raise SettingsError(
                f"precision: expected int8 for {ONNXRUNTIME}, found '{self.precision}'; calib run writes the others"
            )
        if self.reduce_range not in REDUCE_RANGE:
            raise SettingsError(
                f"reduce_range: expected one of {', '.join(REDUCE_RANGE)}, found '{self.reduce_range:.40}'"
            )
        if self.reduce_range != "auto" and self.target != ONNXRUNTIME:
            raise SettingsError(f"reduce_range: only models for {ONNXRUNTIME} have one; leave it out")
        if self.target == FOR_RTX and not self.capabilities:
            raise SettingsError(
                "compute_capability: expected those of the GPUs to build for, such as 8.6,8.9, found none"
            )
        if self.float_type not in FLOAT_TYPES:
            raise SettingsError(f"float_type: expected one of {', '.join(FLOAT_TYPES)}, found '{self.float_type}'")
        if self.float_type != "fp32" and (self.target != FOR_RTX or self.precision != "int8"):
            raise SettingsError(
                f"float_type: only INT8 for {FOR_RTX} has one, because TensorRT chooses by itself; leave it out"
            )
        wrong = [text for text in self.capabilities if not re.fullmatch(r"[0-9]{1,2}\.[0-9]", text)]
        if wrong:
            raise SettingsError(f"compute_capability: expected numbers such as 8.6,8.9, found '{wrong[0]:.40}'")
        super().__post_init__()

    def _check_dynamic(self) -> None:
        """Check the sizes of engines: heights and widths may have ranges, if no size is stated beside them."""
        if batch_range_from_text(self.dynamic).sides is not None and self.input_size:
            raise SettingsError(
                "dynamic: expected ranges of height and width, or --input-size, found both; leave one of them out"
            )

    def engine_name(self, precision: str, capability: str) -> str:
        """File name of the engine for a compute capability."""
        if self.target == FOR_RTX:
            return ahead_name(precision, capability)
        if self.target == ONNXRUNTIME:
            return onnxruntime_name(precision)
        return build_name(precision, ENGINE_SUFFIX)

    def _check_paths(self) -> None:
        """Check that no engine overwrites what it is built from."""
        names = [
            self.engine_name(precision, each)
            for precision in ("int8", "fp16", "fp32")
            for each in (self.capabilities or ("",))
        ]
        files = [name for built in names for name in (built, description_name(built), data_name(built))]
        written = {resolved(self.out / name) for name in files}
        for path in (self.model, self.cache, self.precisions):
            if path is not None and resolved(path) in written:
                raise SettingsError(f"{path}: would be overwritten by this build; rename it, or choose another --out")


def capabilities_from_text(text: str) -> tuple[str, ...]:
    """Compute capabilities from a list such as 8.6,8.9; each is taken once."""
    return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
