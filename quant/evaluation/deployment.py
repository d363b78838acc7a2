"""Where a build as a user would deploy it gives other answers than the same build as it is written.

ONNX Runtime fuses Q/DQ pairs into integer kernels. On x86 processors without VNNI, these multiply unsigned by signed
bytes and add pairs of products in 16 bits, which saturate. TensorRT's kernels add in 32 bits.
"""

from __future__ import annotations

import math
import platform
from pathlib import Path

from quant.evaluation.accuracy import Evaluation
from quant.evaluation.drop import paired_drop
from quant.evaluation.fidelity import OutputFidelity

_BEYOND_NOISE_DB = 1.0  # kernels that round in another order differ by a tenth of that
_NEARLY_EXACT_DB = 60.0  # above, an output has no noise that matters
_EXACT_ON_X86 = {"avx512_vnni": "AVX-512 VNNI", "avx_vnni": "AVX-VNNI", "amx_int8": "AMX"}


def differs(evaluation: Evaluation) -> bool:
    """Do the answers as deployed differ from the exact ones beyond noise?"""
    written, deployed = evaluation.written, evaluation.deployed
    if written is None or deployed is None:
        return False
    pair = most_changed(evaluation)
    if pair is not None and _lost_db(*pair) > _BEYOND_NOISE_DB:
        return True
    if written.correct is None or deployed.correct is None:
        return False
    drop = paired_drop(written.correct, deployed.correct)
    return drop.low > 0 or drop.high < 0


def most_changed(evaluation: Evaluation) -> tuple[OutputFidelity, OutputFidelity] | None:
    """The output that loses most where the build is deployed: as it is written, and as deployed; None without one."""
    written, deployed = evaluation.written, evaluation.deployed
    if written is None or deployed is None:
        return None
    pairs = list(zip(written.fidelity, deployed.fidelity, strict=True))
    return max(pairs, key=lambda pair: _lost_db(*pair), default=None)


def _lost_db(written: OutputFidelity, deployed: OutputFidelity) -> float:
    """By how much the worst part of an output falls, dB; of what is nearly exact in both forms, nothing."""
    return min(written.floor_db, _NEARLY_EXACT_DB) - min(deployed.floor_db, _NEARLY_EXACT_DB)


def missing_instructions() -> str:
    """Instruction sets without which ONNX Runtime's INT8 kernels saturate; empty where this processor has one."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return ""
    information = Path("/proc/cpuinfo")
    if not information.is_file():
        return ""
    flags = set(information.read_text(encoding="utf-8", errors="replace").split())
    return "" if flags & _EXACT_ON_X86.keys() else " or ".join(_EXACT_ON_X86.values())


def deployment_line(name: str, evaluation: Evaluation) -> str | None:
    """Both figures of a build whose deployed form differs, why, and what to set; None where it does not."""
    written, deployed = evaluation.written, evaluation.deployed
    if written is None or deployed is None or not differs(evaluation):
        return None
    pair = most_changed(evaluation)
    figures = "" if pair is None else _figures(*pair)
    if written.top1 is not None and deployed.top1 is not None:
        figures += f"{', ' * bool(figures)}top-1 {deployed.top1:.2f} % instead of {written.top1:.2f}"
    missing = missing_instructions()
    why = f"this processor has no {missing}, and without one of these" if missing else "on some processors"
    return (
        f"{name} as ONNX Runtime deploys it here computes in another way ({figures}, on {deployed.images:,} images): "
        f"{why} its integer kernels saturate. TensorRT does not have this, so the report's figures are those of the "
        "model as it is written; to deploy on ONNX Runtime here, set session.x64quantprecision = 1, or "
        "session.disable_quant_qdq = 1 for exactly these figures"
    )


def _figures(written: OutputFidelity, deployed: OutputFidelity) -> str:
    before = "no noise at all" if math.isinf(written.floor_db) else f"{written.floor_db:.1f}"
    return f"SQNR of output '{written.name}' {deployed.floor_db:.1f} dB instead of {before}"
