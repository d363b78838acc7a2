"""The settings of `calib build`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from calib.regular_files import resolved
from quant.errors import SettingsError
from quant.settings.output_names import ENGINE_SUFFIX, ahead_name, build_name, description_name
from quant.settings.run_settings import RunSettings

TENSORRT, FOR_RTX = "tensorrt", "tensorrt-rtx"
TARGETS = (TENSORRT, FOR_RTX)
FLOAT_TYPES = ("fp32", "fp16")


@dataclass(frozen=True)
class BuildSettings(RunSettings):
    """Settings of `calib build`: those of a run, of which model, scales, sizes and builder options count.

    Attributes:
        float_type: For tensorrt-rtx and INT8: the type of what has no Q/DQ pair, fp32 or fp16.
        target: tensorrt for the GPU that is here, tensorrt-rtx for GPUs that need not be here.
        capabilities: For tensorrt-rtx: compute capabilities to build for, such as "8.9".
    """

    float_type: str = "fp32"
    target: str = TENSORRT
    capabilities: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.target not in TARGETS:
            raise SettingsError(f"target: expected one of {', '.join(TARGETS)}, found '{self.target}'")
        if self.target == TENSORRT and self.capabilities:
            raise SettingsError(
                "compute_capability: expected none, because TensorRT builds for the GPU that is here; use --target "
                "tensorrt-rtx"
            )
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

    def engine_name(self, precision: str, capability: str) -> str:
        """File name of the engine for a compute capability."""
        if self.target == FOR_RTX:
            return ahead_name(precision, capability)
        return build_name(precision, ENGINE_SUFFIX)

    def _check_paths(self) -> None:
        """Check that no engine overwrites what it is built from."""
        names = [
            self.engine_name(precision, each)
            for precision in ("int8", "fp16", "fp32")
            for each in (self.capabilities or ("",))
        ]
        written = {resolved(self.out / name) for engine in names for name in (engine, description_name(engine))}
        for path in (self.model, self.cache, self.precisions):
            if path is not None and resolved(path) in written:
                raise SettingsError(f"{path}: would be overwritten by this build; rename it, or choose another --out")


def capabilities_from_text(text: str) -> tuple[str, ...]:
    """Compute capabilities from a list such as 8.6,8.9; each is taken once."""
    return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
